"""Augment pairs and resample them with half-pixel centers."""

import numpy as np
import pytest
from support.data_sets import draw_pair

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data import decode, transforms
from pyrseg_jax.data.augmentation.geometry import PADDING_COLOR
from pyrseg_jax.data.resample import resize_labels, resize_pair_into, upsample_argmax


def coordinate_pair(height=40, width=60):
    """An image that holds its label: class id = red / 10."""
    label = np.add.outer(np.arange(height) // 10, np.arange(width) // 10 * 4).astype(np.uint8)
    image = np.stack([label * 10, label * 10, label * 10], -1)
    return decode.Pair(image, label)


def test_image_and_label_move_together(rng):
    augment = transforms.Augmentation(crop_px=32, scale_min=0.5, scale_max=2.0, is_flipped=True)
    num_void = 0
    for _ in range(50):
        image, label = augment(coordinate_pair(), rng)
        # Where the image is flat, away from interpolated edges, its color tells the class.
        is_flat = (np.abs(np.diff(image[..., 0].astype(int), axis=0, prepend=-99)) == 0) & (
            np.abs(np.diff(image[..., 0].astype(int), axis=1, prepend=-99)) == 0
        )
        inside = is_flat & (label != VOID) & (image[..., 0] % 10 == 0)
        assert inside.mean() > 0.05
        np.testing.assert_array_equal(image[inside][:, 0] // 10, label[inside])
        num_void += (label == VOID).any()
        assert (image[(label == VOID)] != 0).any() or not (label == VOID).any()
    assert num_void > 5


@pytest.mark.parametrize("scale", [0.6, 0.7, 1.0, 1.3, 1.9])
def test_label_and_image_have_the_same_pixel_centers(rng, scale):
    """On a ramp, values tell positions: nearest and linear may differ by half a pixel at most, and not on average."""
    ramp = np.add.outer(np.zeros(60), np.arange(60)).astype(np.uint8)
    for axes in ((0, 1), (1, 0)):
        label = ramp.transpose(axes)
        pair = decode.Pair(np.repeat(4 * label[..., None], 3, -1), label)
        for _ in range(5):
            image, found = transforms.Augmentation(24, scale, scale, is_flipped=True)(pair, rng)
            difference = (image[..., 0] / 4 - found)[2:-2, 2:-2]
            assert np.abs(difference).max() <= 0.5 + 0.2
            assert abs(difference.mean()) < 0.15


def test_without_randomness_nothing_changes(rng):
    pair = decode.Pair(*draw_pair(rng, 32, 32))
    found = transforms.Augmentation(crop_px=32)(pair, rng)
    np.testing.assert_array_equal(found.image, pair.image)
    np.testing.assert_array_equal(found.label, pair.label)


def test_flip_is_exact_and_happens_half_of_the_time(rng):
    pair = decode.Pair(*draw_pair(rng, 32, 32))
    num_flipped = 0
    for _ in range(200):
        found = transforms.Augmentation(crop_px=32, is_flipped=True)(pair, rng)
        is_flipped = not (found.label == pair.label).all()
        expected = decode.Pair(*(array[:, ::-1] for array in pair)) if is_flipped else pair
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_array_equal(found.label, expected.label)
        num_flipped += is_flipped
    assert 70 < num_flipped < 130


def test_crop_covers_the_image_and_pads_with_void(rng):
    """Crops reach every pixel of a larger image, and a smaller image is never cut."""
    label = np.arange(50, dtype=np.uint8)[None].repeat(10, 0)
    pair = decode.Pair(np.zeros((10, 50, 3), np.uint8), label)
    seen = np.unique([transforms.Augmentation(crop_px=16)(pair, rng).label for _ in range(200)])
    np.testing.assert_array_equal(seen, [*range(50), VOID])
    small = decode.Pair(np.zeros((10, 8, 3), np.uint8), np.ones((10, 8), np.uint8))
    for _ in range(20):
        found = transforms.Augmentation(crop_px=16)(small, rng)
        assert 70 <= (found.label == 1).sum() <= 80  # at most one row or column is lost to rounding
        assert (found.image[found.label == VOID] == PADDING_COLOR).all(-1).mean() > 0.8  # the rest is interpolated


def test_scales_are_drawn_from_the_given_range(rng):
    pair = decode.Pair(np.zeros((64, 64, 3), np.uint8), np.pad(np.ones((32, 32), np.uint8), 16))
    sizes = [transforms.Augmentation(256, 0.5, 2.0)(pair, rng).label for _ in range(100)]
    sides = np.sqrt([(label == 1).sum() for label in sizes]) / 32
    assert 0.5 * 0.93 < sides.min() < 0.6
    assert 1.9 < sides.max() < 2.0 * 1.05


@pytest.mark.parametrize(
    ("factors", "law"),
    [
        ((1, 1, 1), lambda x: x),
        ((0.5, 1, 1), lambda x: x * 0.5),
        ((1, 0, 1), lambda x: np.full_like(x, (x @ [0.299, 0.587, 0.114]).mean())),
        ((1, 1, 0), lambda x: np.repeat((x @ [0.299, 0.587, 0.114])[..., None], 3, -1)),
    ],
)
def test_color_factors_follow_their_laws(rng, factors, law):
    image = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    found = transforms.jitter_color(image, *factors)
    np.testing.assert_allclose(found, law(image.astype(float)), atol=1)


# --- resampling


def bilinear_slowly(values, size):
    """Interpolate (h, w) pixel by pixel: the center of pixel i lies at i + 0.5, and the edge pixels extend outward."""
    result = np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = (
                np.clip((i + 0.5) * fro / to - 0.5, 0, fro - 1) for i, to, fro in zip((row, column), size, values.shape)
            )
            top, left = int(y), int(x)
            bottom, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
            upper = values[top, left] * (1 - x + left) + values[top, right] * (x - left)
            lower = values[bottom, left] * (1 - x + left) + values[bottom, right] * (x - left)
            result[row, column] = upper * (1 - y + top) + lower * (y - top)
    return result


@pytest.mark.parametrize("size", [(13, 22), (24, 28), (5, 40)])
def test_upsampled_classes_are_those_of_a_slow_interpolation(rng, size):
    probs = rng.random((6, 7, 4)).astype(np.float32)
    scores = np.stack([bilinear_slowly(probs[..., i], size) for i in range(4)], -1)
    best = np.sort(scores, -1)
    is_clear = best[..., -1] - best[..., -2] > 1e-4
    assert is_clear.mean() > 0.95
    np.testing.assert_array_equal(upsample_argmax(probs, size)[is_clear], scores.argmax(-1)[is_clear])


def test_of_equally_likely_classes_the_first_wins():
    assert (upsample_argmax(np.full((2, 3, 4), 0.25, np.float32), (5, 6)) == 0).all()


@pytest.mark.parametrize("size", [(8, 5), (12, 18), (32, 31), (12, 9)])  # centers never fall between two pixels
def test_both_ways_to_resize_labels_take_the_pixel_at_the_center(rng, size):
    labels = rng.integers(0, 255, (12, 9)).astype(np.uint8)
    expected = np.array(
        [
            [labels[int((i + 0.5) * 12 / size[0]), int((j + 0.5) * 9 / size[1])] for j in range(size[1])]
            for i in range(size[0])
        ]
    )
    np.testing.assert_array_equal(resize_labels(labels, size), expected)
    image_out, labels_out = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    resize_pair_into(np.zeros((12, 9, 3), np.uint8), labels, image_out, labels_out)
    np.testing.assert_array_equal(labels_out, expected)
