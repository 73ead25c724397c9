"""Stretch, rotation and shear, in one warp with scale and crop."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.augmentations import random_pair

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.augmentation.geometry import PADDING_COLOR, Affine, Span, linear_part, warp_pair
from pyrseg_jax.data.decode import Pair
from pyrseg_jax.data.transforms import Augmentation


def whole(side: int, size: int | None = None) -> Span:
    return Span(slice(0, side), size or side, 0)


@given(st.integers(1, 33), st.integers(0, 3), st.booleans())
def test_right_angles_are_exact(side, quarters, is_mirrored):
    pair = random_pair(np.random.default_rng(side), side, side)
    found = warp_pair(pair, side, whole(side), whole(side), is_mirrored, 90.0 * quarters, 0.0)
    for array, expected in zip(found, pair, strict=True):
        expected = expected[:, ::-1] if is_mirrored else expected
        np.testing.assert_array_equal(array, np.rot90(expected, quarters))


def warp_slowly(pair, crop_px, rows, columns, is_mirrored, rotation_deg, shear_deg):
    """Find each pixel of the crop in the image by the formula; return the bilinear image and the positions (y, x)."""
    angle, lean = math.radians(rotation_deg), math.tan(math.radians(shear_deg))
    mirror = -1 if is_mirrored else 1
    zoom_y, zoom_x = (span.size / (span.source.stop - span.source.start) for span in (rows, columns))
    source_y, source_x = ((span.source.start + span.source.stop) / 2 for span in (rows, columns))
    target_y, target_x = (span.start + span.size / 2 for span in (rows, columns))
    image = np.zeros((crop_px, crop_px, 3))
    positions = np.zeros((crop_px, crop_px, 2))
    padded = np.pad(pair.image.astype(float), ((1, 1), (1, 1), (0, 0)))
    padded[[0, -1]], padded[:, [0, -1]] = PADDING_COLOR, PADDING_COLOR
    for row in range(crop_px):
        for column in range(crop_px):
            dx, dy = column + 0.5 - target_x, row + 0.5 - target_y
            # Undo the rotation, then the shear, the mirroring, and the zoom. Counterclockwise on the screen, where y points down.
            dx, dy = math.cos(angle) * dx - math.sin(angle) * dy, math.sin(angle) * dx + math.cos(angle) * dy
            dx = mirror * (dx - lean * dy)
            y, x = source_y + dy / zoom_y - 0.5, source_x + dx / zoom_x - 0.5
            positions[row, column] = y, x
            top, left = math.floor(y), math.floor(x)
            if -1 <= top < pair.label.shape[0] and -1 <= left < pair.label.shape[1]:
                four = padded[top + 1 : top + 3, left + 1 : left + 3]
                image[row, column] = (
                    four * np.array([top + 1 - y, y - top])[:, None, None] * np.array([left + 1 - x, x - left])[:, None]
                ).sum((0, 1))
            else:
                image[row, column] = PADDING_COLOR
    return image, positions


@pytest.mark.parametrize("number", range(8))
def test_a_warp_equals_a_slow_twin(number):
    rng = np.random.default_rng(number)
    pair = random_pair(rng, 21, 30)
    rows, columns = Span(slice(3, 18), 20, 2), Span(slice(0, 30), 24, 0)
    parameters = (rows, columns, bool(number % 2), rng.uniform(-180, 180), rng.uniform(-40, 40))
    found = warp_pair(pair, 24, *parameters)
    expected, positions = warp_slowly(pair, 24, *parameters)
    # OpenCV may round positions to 1/32 pixel, which is 4 of 255 gray levels in each direction.
    assert np.abs(found.image - expected).max() <= 2 * 255 / 64 + 1
    assert np.abs(found.image - expected).mean() < 1.5
    is_clear = (np.abs(positions % 1 - 0.5) > 0.02).all(-1)  # the nearest pixel is beyond doubt
    assert is_clear.mean() > 0.8
    y, x = np.moveaxis(np.rint(positions).astype(int), -1, 0)
    is_inside = (y >= 0) & (y < 21) & (x >= 0) & (x < 30)
    labels = np.where(is_inside, pair.label[y.clip(0, 20), x.clip(0, 29)], VOID)
    np.testing.assert_array_equal(found.label[is_clear], labels[is_clear])


@pytest.mark.parametrize("size", [(40, 60), (100, 90), (20, 200)])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_without_angles_a_warp_shows_what_resizing_shows(rng, size, is_mirrored):
    """A crop with an angle of almost zero lies where the crop without one lies."""
    ramp = np.add.outer(2 * np.arange(size[0]), np.arange(size[1])) % 251
    pair = Pair(np.repeat(ramp[..., None].astype(np.uint8), 3, -1), (ramp // 9).astype(np.uint8))
    for seed in range(5):
        crops = [
            Augmentation(48, 0.6, 1.4, is_mirrored, affine=Affine(rotation_deg=angle))(
                pair, np.random.default_rng(seed)
            )
            for angle in (0.0, 1e-9)
        ]
        assert (crops[0].label == crops[1].label).mean() > 0.9
        # The edges of the image, and of the ramp, are interpolated differently.
        assert np.median(np.abs(crops[0].image.astype(int) - crops[1].image)) <= 1


@given(st.integers(0, 2**32 - 1))
def test_no_label_appears_and_none_is_moved_away_from_its_image(seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(1, 6, (12, 9)).astype(np.uint8).repeat(6, 0).repeat(6, 1)
    label[rng.random(label.shape) < 0.01] = VOID
    pair = Pair(np.repeat(np.where(label == VOID, 250, 40 * label)[..., None], 3, -1).astype(np.uint8), label)
    augment = Augmentation(40, 0.8, 2.0, True, affine=Affine(180.0, 30.0, 1.5))
    image, found = augment(pair, rng)
    assert set(np.unique(found)) <= {*np.unique(label), VOID}
    flat = image[..., 0]
    is_flat = np.ones(flat.shape, bool)  # all nine pixels around have one color, so none of them was interpolated
    for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        is_flat &= np.roll(flat, shift, (0, 1)) == flat
    is_sure = (is_flat & (found != VOID) & (flat % 40 == 0) & (flat > 0))[1:-1, 1:-1]
    assert is_sure.mean() > 0.1
    np.testing.assert_array_equal(flat[1:-1, 1:-1][is_sure] // 40, found[1:-1, 1:-1][is_sure])
    outside = (found == VOID) & (flat != 250)
    assert outside.any() or (found != VOID).mean() > 0.9
    assert set(np.unique(flat[(found == VOID) & is_flat])) <= {PADDING_COLOR[0], 250, *np.unique(40 * label)}


@pytest.mark.parametrize("angles", [(17.0, 0.0), (-60.0, 12.0), (45.0, -25.0)])
def test_label_and_image_have_the_same_pixel_centers(angles):
    """On a ramp, values tell positions: nearest and linear may differ by half a pixel at most, and not on average."""
    ramp = np.add.outer(np.zeros(60), np.arange(60)).astype(np.uint8)
    for label in (ramp, np.ascontiguousarray(ramp.T)):
        pair = Pair(np.repeat(4 * label[..., None], 3, -1), label)
        spans = Span(slice(20, 40), 40, 0), Span(slice(15, 35), 40, 0)
        image, found = warp_pair(pair, 40, *spans, False, *angles)
        difference = image[..., 0] / 4 - found
        assert (found != VOID).all()
        assert np.abs(difference).max() <= 0.5 + 0.25
        assert abs(difference.mean()) < 0.05


def test_zoom_mirror_shear_and_rotation_act_in_this_order():
    np.testing.assert_allclose(linear_part((3.0, 2.0), True, 0.0, 0.0), [[-2, 0], [0, 3]])
    np.testing.assert_allclose(linear_part((1.0, 1.0), False, 90.0, 0.0) @ [1, 0], [0, -1], atol=1e-12)
    np.testing.assert_allclose(linear_part((1.0, 1.0), False, 0.0, 45.0) @ [0, 1], [1, 1])
    found = linear_part((3.0, 2.0), True, 90.0, 45.0) @ [1, 1]  # to (-2, 3), to (1, 3), to (3, -1)
    np.testing.assert_allclose(found, [3, -1], atol=1e-12)


def test_an_image_longer_than_opencv_warps_is_warped(rng):
    pair = random_pair(rng, 6, 40_000)
    found = Augmentation(8, affine=Affine(rotation_deg=5.0))(pair, rng)
    assert (found.label != VOID).sum() > 20


def test_angles_and_stretches_are_drawn_from_their_ranges(rng):
    affine = Affine(rotation_deg=20.0, shear_deg=5.0, aspect=2.0, probability=0.25)
    angles = [affine.draw_angles(rng) for _ in range(4000)]
    drawn = np.array([pair for pair in angles if pair is not None])
    assert 0.22 < len(drawn) / 4000 < 0.28
    for values, limit in zip(drawn.T, (20, 5), strict=True):
        assert np.abs(values).max() <= limit
        np.testing.assert_allclose(np.quantile(values, [0.25, 0.5, 0.75]) / limit, [-0.5, 0, 0.5], atol=0.1)
    stretches = np.array([affine.draw_stretch(rng) for _ in range(2000)])
    np.testing.assert_allclose(stretches.prod(1), 1)
    ratios = np.log2(stretches[:, 1] / stretches[:, 0])
    np.testing.assert_allclose(np.quantile(ratios, [0, 0.25, 0.5, 0.75, 1]), [-1, -0.5, 0, 0.5, 1], atol=0.06)


def test_without_stretch_and_angles_nothing_is_drawn(rng):
    state = rng.bit_generator.state
    assert Affine().draw_stretch(rng) == (1.0, 1.0)
    assert Affine().draw_angles(rng) is None
    assert rng.bit_generator.state == state


def test_a_stretched_crop_shows_a_window_of_another_shape(rng):
    pair = Pair(np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.uint8))
    shapes = []
    for _ in range(100):
        label = Augmentation(200, affine=Affine(aspect=2.0))(pair, rng).label == 1
        shapes.append((label.any(1).sum(), label.any(0).sum()))
    heights, widths = np.array(shapes).T
    np.testing.assert_allclose(heights * widths, 64 * 64, rtol=0.05)
    assert 0.5 * 0.97 < (widths / heights).min() < 0.6
    assert 1.7 < (widths / heights).max() < 2 * 1.03
