"""How sure predictions are: every map against a slow twin, and the laws that hold for all probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import slow_uncertainty, twins
from support.data_sets import draw_pair
from support.evaluation import predictor, tiny

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.data.resample import upsample_argmax, upsample_scaled
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.disagreement import disagreement_of, entropy
from pyrseg_jax.evaluation.padding import pad_view
from pyrseg_jax.evaluation.pixels import labels_of_pixels, padded_pixels
from pyrseg_jax.evaluation.predict import fuse_pyramids
from pyrseg_jax.evaluation.uncertainty import MAPS, maps_of_batch
from pyrseg_jax.evaluation.views import Protocol, make_protocol
from pyrseg_jax.run.model_predictor import ModelPredictor
from pyrseg_jax.run.predictor import Wants

TEMPERATURES = np.array([0.6, 1.7, 1.2], np.float32)


def draw_prediction(rng, num_levels=3, num_classes=5, grid=(2, 3), sharpness=3.0):
    """Draw both pyramids of one image, and fuse them."""
    sizes = [(grid[0] << i, grid[1] << i) for i in range(num_levels)]
    logits = [sharpness * rng.standard_normal((1, *size, num_classes)) for size in sizes]
    probs = [jax.nn.softmax(jnp.asarray(x, jnp.float32)) for x in logits]
    unity = [jnp.asarray(rng.random((1, *s)), jnp.float32) for s in sizes[:-1]]
    return fuse_pyramids(probs, unity, 0.5)


def twin_of(prediction):
    parts = ([np.asarray(x[0]) for x in pyramid] for pyramid in (prediction.probs, prediction.unity))
    return slow_uncertainty.disagreement(*parts)


def measure(prediction, size, truth=None, names=MAPS, temperatures=TEMPERATURES, is_mirrored=False):
    view = pad_view(prediction, jnp.array([is_mirrored]), disagreement_of(prediction))
    padded_size, padded = padded_pixels(size[0] * size[1]), None
    if truth is not None:
        padded = np.full((1, padded_size), VOID, np.uint8)
        padded[0, : truth.size] = truth.ravel()
    sizes, temperatures = jnp.array([size], jnp.int32), jnp.asarray(temperatures)
    labels, maps, is_number = maps_of_batch([view], sizes, padded_size, names, temperatures, padded)
    assert is_number.all()
    labels_before = labels_of_pixels([view], sizes[0], padded_size)
    cut = lambda x: np.asarray(x)[: truth.size if truth is not None else size[0] * size[1]].reshape(size)  # noqa: E731
    assert np.array_equal(cut(labels[0]), cut(labels_before))
    return cut(labels[0]), {name: cut(values[0]) for name, values in maps.items()}


@pytest.mark.parametrize("size", [(40, 70), (33, 20)])
def test_the_maps_equal_the_twin(rng, size):
    found = draw_prediction(rng)
    truth = rng.choice([0, 1, 2, 3, 4, VOID], size).astype(np.uint8)
    labels, maps = measure(found, size, truth)
    fused, level = np.asarray(found.fused[0]), np.asarray(found.level[0])
    expected, confidence, spread, doubt = slow_uncertainty.maps(fused, level, TEMPERATURES, size, truth)
    assert (labels == expected).mean() > 0.999
    np.testing.assert_allclose(maps["confidence"], confidence, atol=2e-5)
    np.testing.assert_allclose(maps["entropy"], spread, atol=2e-5)
    np.testing.assert_allclose(maps["doubt"], doubt, atol=1e-3)
    assert (maps["doubt"][truth == VOID] == 0).all() and (maps["doubt"] >= 0).all()
    assert (maps["doubt"][truth == labels] == 0).all()
    told = twin_of(found)
    np.testing.assert_allclose(maps["disagreement"], twins.bilinear(told[..., None], size)[..., 0], atol=2e-5)
    # The same on the host, for exported models.
    sure, unsure = upsample_scaled(fused, level, TEMPERATURES.tolist(), size)
    np.testing.assert_allclose(sure, confidence, atol=1e-4)
    np.testing.assert_allclose(unsure, spread, atol=1e-4)
    assert (upsample_argmax(fused, size) == expected).mean() > 0.999


def test_a_mirrored_view_is_turned_back(rng):
    found, size = draw_prediction(rng), (16, 24)
    _, plain = measure(found, size, names=("entropy", "disagreement"))
    flipped = jax.tree.map(lambda x: x[:, :, ::-1], found)
    _, turned = measure(flipped, size, names=("entropy", "disagreement"), is_mirrored=True)
    np.testing.assert_allclose(turned["disagreement"], plain["disagreement"], atol=1e-5)


@given(st.sampled_from([(1, 3), (4, 2), (3, 7)]), st.integers(0, 2**32 - 1), st.floats(0.1, 5))
@settings(max_examples=12)
def test_disagreement_is_a_share_and_equals_the_twin(shape, seed, sharpness):
    found = draw_prediction(np.random.default_rng(seed), *shape, grid=(1, 2), sharpness=sharpness)
    told = np.asarray(disagreement_of(found))[0]
    assert (told >= 0).all() and (told <= 1).all()
    np.testing.assert_allclose(told, twin_of(found), atol=2e-5)
    assert (np.asarray(entropy(found.fused)) <= np.log(shape[1]) + 1e-5).all()
    # Levels that say the same do not disagree, whatever the unity pyramid says.
    flat = [jnp.broadcast_to(found.probs[0][:, :1, :1], probs.shape) for probs in found.probs]
    np.testing.assert_allclose(np.asarray(disagreement_of(fuse_pyramids(flat, found.unity, 0.5))), 0, atol=1e-5)


def test_levels_that_exclude_each_other_disagree_fully():
    coarse, fine = jnp.eye(2)[jnp.zeros((1, 1, 1), int)], jnp.eye(2)[jnp.ones((1, 2, 2), int)]
    even, sure = jnp.full((1, 1, 1), 0.5), jnp.ones((1, 1, 1))
    np.testing.assert_allclose(np.asarray(disagreement_of(fuse_pyramids([coarse, fine], [even], 0.5))), 1, atol=1e-6)
    # Where the coarse level decides for sure, the other one has no say.
    assert not np.asarray(disagreement_of(fuse_pyramids([coarse, fine], [sure], 0.5))).any()


@given(st.lists(st.floats(0.125, 16), min_size=3, max_size=3), st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_temperatures_change_no_label(temperatures, seed):
    found = draw_prediction(np.random.default_rng(seed))
    cold, _ = measure(found, (17, 23), names=("confidence",), temperatures=np.ones(3, np.float32))
    warm, _ = measure(found, (17, 23), names=("confidence",), temperatures=np.array(temperatures, np.float32))
    assert np.array_equal(cold, warm)


# ── Predictors ──


def calibrated(temperatures):
    return ModelPredictor(*tiny(), Protocol(), 0.5, ade_layout(("a", "b", "c")), temperatures=temperatures)


def test_a_predictor_gives_the_maps_it_is_asked_for(rng):
    image = draw_pair(rng, 40, 70)[0]
    plain, warm = predictor(), calibrated((2.0,) * 4)
    wants = Wants(has_confidence=True, has_entropy=True, has_disagreement=True)
    (found,) = plain.start([image], wants)()
    (before,) = plain.start([image], Wants(has_confidence=True))()
    (after,) = warm.start([image], wants)()
    assert np.array_equal(found.labels, before.labels) and np.array_equal(found.labels, after.labels)
    # One temperature of 1 everywhere is no temperature, up to the rounding to bytes.
    assert np.abs(found.confidence.astype(int) - before.confidence).max() <= 1
    assert after.confidence.mean() < found.confidence.mean() and after.entropy.mean() > found.entropy.mean()
    assert np.array_equal(after.disagreement, found.disagreement) and found.disagreement.any()
    measured = plain.measure(image)()
    assert measured.doubt is None and np.array_equal(np.round(255 * measured.entropy).astype(np.uint8), found.entropy)
    masked = found.masked(np.ones((40, 70), bool), VOID)
    assert not masked.entropy.any() and not masked.disagreement.any() and (masked.labels == VOID).all()


def test_disagreement_needs_levels():
    wants = Wants(has_disagreement=True)
    predictor().check_wants(wants)
    with pytest.raises(UserError, match="this protocol cuts images into windows: use a network with a pyramid"):
        predictor(make_protocol("hrnet", None, 2048, 32)).check_wants(wants)


def test_doubt_is_about_the_given_label(rng):
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    labels = predictor().measure(image)().labels
    assert predictor().measure(image, labels)().doubt.max() == 0
    wrong = labels.copy()
    wrong[10:30, 20:50] = (labels[10:30, 20:50] + 1) % 3
    doubt = predictor().measure(image, wrong)().doubt
    assert (doubt > 0).sum() == 600 and (doubt[10:30, 20:50] > 0).all()
