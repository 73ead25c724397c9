"""Photometric distortion, blur, noise, JPEG compression and erasing."""

import io
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.augmentations import EFFECTS, random_pair

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.augmentation import degradation, photometric
from pyrseg_jax.data.augmentation.erasing import Erasing
from pyrseg_jax.data.augmentation.geometry import PADDING_COLOR
from pyrseg_jax.data.augmentation.photometric import Photometric
from pyrseg_jax.data.decode import Pair
from pyrseg_jax.data.transforms import Augmentation


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: type(effect).__name__)
def test_an_effect_is_a_function_of_the_pair_and_the_generator(rng, effect):
    pair = random_pair(rng, 24, 31)
    before = pair.image.copy(), pair.label.copy()
    for seed in range(10):
        first, second = (effect(pair, np.random.default_rng(seed)) for _ in range(2))
        for a, b, array in zip(first, second, pair, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.shape == array.shape and a.dtype == np.uint8
        assert set(np.unique(first.label)) <= {*np.unique(pair.label), VOID}
    np.testing.assert_array_equal(pair.image, before[0])
    np.testing.assert_array_equal(pair.label, before[1])


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: type(effect).__name__)
def test_an_effect_changes_its_share_of_the_images(rng, effect):
    pair = random_pair(rng, 8, 8)
    probability = 0.3
    changed = type(effect)(probability)
    found = np.mean([changed(pair, rng) is not pair for _ in range(1500)])
    assert abs(found - probability) < 0.05


def test_effects_follow_each_other_in_their_order(rng):
    calls = []

    def noting(name):
        def effect(pair, generator):
            calls.append((name, generator is rng))
            return pair

        return effect

    Augmentation(8, effects=(noting("first"), noting("second")))(random_pair(rng, 9, 9), rng)
    assert calls == [("first", True), ("second", True)]


# --- photometric distortion


@given(st.integers(0, 2**32 - 1), st.floats(0, 2), st.floats(-60, 60))
def test_levels_are_scaled_and_shifted_as_a_slow_twin_does(seed, factor, shift):
    image = random_pair(np.random.default_rng(seed), 5, 4).image
    expected = np.clip(image.astype(np.float32) * factor + shift, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(photometric.change_levels(image, factor, shift), expected)


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (5, np.uint8), (3, np.float32), (4, np.float32)])
def test_other_images_change_in_brightness_and_contrast_alone(channels, dtype):
    """One affine map for all pixels and channels, between 0 and 255; no hue and no saturation."""
    rng = np.random.default_rng(0)
    values = rng.uniform(60, 180, (40, 40, channels)).astype(dtype)  # so that nothing is clipped twice
    label = np.zeros((40, 40), np.uint8)
    distort, num_changed = Photometric(1.0, 40, 0.3, 0.9, 90), 0
    for seed in range(20):
        image = distort(Pair(values, label), np.random.default_rng(seed)).image
        assert (image.shape, image.dtype) == (values.shape, dtype)
        inside = (image > 0) & (image < 255)
        factor, shift = np.polyfit(values[inside].astype(float), image[inside].astype(float), 1)
        line = np.clip(factor * values + shift, 0, 255)
        assert np.abs(image - line).max() < (0.01 if dtype == np.float32 else 2)
        assert 0.69 < factor < 1.31
        num_changed += not np.array_equal(image, values)
    assert num_changed > 5


def test_hue_and_saturation_follow_their_laws(rng):
    pure = np.array([[[200, 0, 0], [0, 200, 0], [0, 0, 200], [90, 90, 90]]], np.uint8)
    np.testing.assert_array_equal(photometric.change_hue(pure, 120), pure[:, [1, 2, 0, 3]])
    np.testing.assert_array_equal(photometric.change_hue(pure, -120), pure[:, [2, 0, 1, 3]])
    image = random_pair(rng, 9, 9).image
    gray = np.repeat(image.max(-1, keepdims=True), 3, -1)  # HSV keeps the largest channel
    np.testing.assert_array_equal(photometric.change_saturation(image, 0.0), gray)
    for same in (photometric.change_hue(image, 0), photometric.change_hue(image, 1), photometric.change_levels(image)):
        np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(photometric.change_saturation(image, 1.0), image)
    weaker = photometric.change_saturation(image, 0.5).astype(int)
    np.testing.assert_allclose(weaker, gray - (gray.astype(int) - image) / 2, atol=4)


def test_distortion_draws_what_its_ranges_say(monkeypatch, rng):
    drawn = {"levels": [], "saturation": [], "hue": []}
    order = []
    for name, of in (("levels", "change_levels"), ("saturation", "change_saturation"), ("hue", "change_hue")):

        def noting(image, *values, name=name, **named):
            drawn[name].append(values[0] if values else named)
            order[-1].append(next(iter(named)) if named else name)
            return image

        monkeypatch.setattr(photometric, of, noting)
    pair = random_pair(rng, 2, 2)
    for _ in range(3000):
        order.append([])
        Photometric()(pair, rng)
    shifts = [named["shift"] for named in drawn["levels"] if "shift" in named]
    factors = [named["factor"] for named in drawn["levels"] if "factor" in named]
    for values in (shifts, factors, drawn["saturation"], drawn["hue"]):
        assert abs(len(values) / 3000 - 0.5) < 0.03
    quarters = [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(np.quantile(shifts, quarters), [-32, -16, 0, 16, 32], atol=2)
    for values in (factors, drawn["saturation"]):
        np.testing.assert_allclose(np.quantile(values, quarters), [0.5, 0.75, 1, 1.25, 1.5], atol=0.04)
    assert set(drawn["hue"]) == set(range(-36, 36, 2))
    both = [names for names in order if {"factor", "saturation"} <= set(names)]
    assert abs(np.mean([names.index("factor") < names.index("saturation") for names in both]) - 0.5) < 0.06
    assert all(names.index("shift") == 0 for names in order if "shift" in names)


def test_each_distortion_equals_that_of_mmsegmentation(rng):
    """Given the same parameters, to the last bit. Its images are BGR."""
    from support.reference_networks import mmseg_models

    mmseg_models()
    try:
        from mmseg.datasets.transforms import transforms as published
    except ImportError as error:
        pytest.skip(f"the transforms of mmsegmentation cannot be imported: {error}")

    class Chosen:
        """Answers instead of `numpy.random`: every change happens, with these amounts."""

        def __init__(self, amount):
            self.amount = amount

        def randint(self, low, high=None):
            return 1 if high is None else self.amount

        def uniform(self, low, high):
            return self.amount

    image = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    distortion = published.PhotoMetricDistortion()
    for _ in range(20):
        factor, shift, steps = rng.uniform(0.5, 1.5), rng.uniform(-32, 32), int(rng.integers(-18, 18))
        cases = (
            (distortion.brightness, shift, photometric.change_levels(image, shift=shift)),
            (distortion.contrast, factor, photometric.change_levels(image, factor=factor)),
            (distortion.saturation, factor, photometric.change_saturation(image, factor)),
            (distortion.hue, steps, photometric.change_hue(image, 2 * steps)),
        )
        for function, amount, found in cases:
            kept, published.random = published.random, Chosen(amount)
            try:
                expected = function(np.ascontiguousarray(image[..., ::-1]))[..., ::-1]
            finally:
                published.random = kept
            np.testing.assert_array_equal(found, expected)


# --- blur, noise, JPEG


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.7])
def test_a_blur_equals_a_slow_convolution(rng, sigma):
    image = rng.integers(0, 256, (20, 17, 3)).astype(np.uint8)
    reach = 8
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    expected = np.pad(image.astype(float), ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    for axis in (0, 1):
        expected = np.apply_along_axis(np.convolve, axis, expected, kernel, "valid")
    np.testing.assert_allclose(degradation.blur(image, sigma), expected, atol=2)
    np.testing.assert_array_equal(degradation.blur(image, 0.0), image)


@pytest.mark.parametrize("std", [3.0, 20.0])
def test_noise_is_normal_and_independent(rng, std):
    gray = np.full((120, 100, 3), 128, np.uint8)
    noise = degradation.add_noise(gray, std, rng).astype(float) - 128
    assert abs(noise.mean()) < 4 * std / np.sqrt(noise.size)
    np.testing.assert_allclose(noise.std(), np.hypot(std, 1 / np.sqrt(12)), rtol=0.02)  # rounding adds 1/12
    limits = np.floor([std, 2 * std, 3 * std]) + 0.5  # the noise is rounded to whole gray levels
    expected = [1 - 2 * statistics.NormalDist(0, std).cdf(-limit) for limit in limits]
    np.testing.assert_allclose([(np.abs(noise) <= limit).mean() for limit in limits], expected, atol=0.01)
    for a, b in ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 1:], noise[..., :-1])):
        assert abs((a * b).mean()) < 0.03 * std**2
    bright = degradation.add_noise(np.full((30, 30, 3), 255, np.uint8), std, rng)
    assert 0.4 < (bright == 255).mean() < 0.7  # clipped, and not wrapped around
    np.testing.assert_array_equal(degradation.add_noise(gray, 0.0, rng), gray)


@pytest.mark.parametrize("quality", [20, 75])
def test_jpeg_equals_that_of_another_library(rng, quality):
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    image = np.stack([4 * x, 5 * y, 255 - 2 * (x + y)], -1).astype(np.uint8)  # red and blue differ
    image[10:20, 10:20] = 255, 0, 0
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "JPEG", quality=quality)
    found, expected = degradation.compress_jpeg(image, quality), np.asarray(Image.open(encoded))
    assert np.abs(found.astype(int) - expected).mean() < 1
    assert (found != image).any()


def test_qualities_cover_their_range(monkeypatch, rng):
    seen = []
    monkeypatch.setattr(degradation, "compress_jpeg", lambda image, quality: seen.append(quality) or image)
    for _ in range(200):
        degradation.JpegCompression(1.0, 50, 54)(random_pair(rng, 2, 2), rng)
    assert set(seen) == {50, 51, 52, 53, 54}


# --- erasing


@given(st.integers(0, 2**32 - 1), st.sampled_from(["void", "kept"]))
def test_one_rectangle_is_erased(seed, labels):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, (40, 60)).astype(np.uint8)
    pair = Pair(np.zeros((40, 60, 3), np.uint8), label)
    image, found = Erasing(1.0, 0.3, labels)(pair, rng)
    is_erased = (image == PADDING_COLOR).all(-1)
    assert (is_erased == np.outer(is_erased.any(1), is_erased.any(0))).all()
    assert 0.01 < is_erased.mean() < 0.33
    assert (image[~is_erased] == 0).all()
    np.testing.assert_array_equal(found, np.where(is_erased & (labels == "void"), VOID, label))


def test_erased_shares_places_and_shapes_are_spread(rng):
    pair = Pair(np.zeros((60, 60, 3), np.uint8), np.zeros((60, 60), np.uint8))
    erased = [Erasing(1.0, 0.2)(pair, rng).label == VOID for _ in range(800)]
    shares = np.array([mask.mean() for mask in erased])
    np.testing.assert_allclose(np.quantile(shares, [0, 0.5, 1]), [0.02, 0.11, 0.2], atol=0.015)
    ratios = np.log([mask.any(1).sum() / mask.any(0).sum() for mask in erased])
    assert abs(np.mean(ratios > 0) - 0.5) < 0.08
    assert all(np.any(erased, axis=(0, axis)).all() for axis in (1, 2))  # every row and every column
