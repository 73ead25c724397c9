"""The training objectives: hard example mining, per-pixel losses, and every combination of the three choices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import twins
from support.patches import Patches
from support.training import make_batch, sgd

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.evaluation.predict import predict
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.segmenter import Pyramids, build_segmenter
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.training.losses import ohem_targets
from pyrseg_jax.training.objective import PerPixelObjective, WithAuxiliary, fit_to_labels
from pyrseg_jax.training.step import initial_state, make_train_step


def draw(rng, n=2, side=6, classes=4, void=0.2):
    logits = rng.normal(size=(n, side, side, classes)).astype(np.float32) * 2
    truth = rng.integers(0, classes, (n, side, side))
    return logits, np.where(rng.random(truth.shape) < void, 255, truth).astype(np.int32)


def probability_of_truth(logits, classes):
    """Return the softmax probability of the true class per position, ∞ where there is none."""
    probs = np.exp(logits - logits.max(-1, keepdims=True)).astype(np.float64)
    probs /= probs.sum(-1, keepdims=True)
    picked = np.take_along_axis(probs, np.where(classes == 255, 0, classes)[..., None], -1)[..., 0]
    return np.where(classes == 255, np.inf, picked)


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.5, 3), (0.2, 20), (0.0, 7), (0.3, 10_000), (1.0, 0), (0.0, 0)])
def test_ohem_equals_the_twin(rng, threshold, min_kept):
    logits, classes = draw(rng)
    found = jax.jit(ohem_targets, static_argnums=(2, 3))(jnp.asarray(logits), jnp.asarray(classes), threshold, min_kept)
    probs = probability_of_truth(logits, classes)
    order = sorted(np.ndindex(probs.shape), key=lambda at: probs[at])
    hardest = set(order[: min(min_kept, int((classes != 255).sum()))])
    kept = {at for at in np.ndindex(probs.shape) if probs[at] < threshold} | hardest
    expected = np.full_like(classes, 255)
    for at in kept:
        expected[at] = classes[at]
    np.testing.assert_array_equal(found, expected)


def test_ohem_keeps_equally_hard_positions_together():
    logits, classes = np.zeros((1, 4, 4, 3), np.float32), np.ones((1, 4, 4), np.int32)
    found = ohem_targets(jnp.asarray(logits), jnp.asarray(classes), 0.0, 3)
    np.testing.assert_array_equal(found, classes)


def test_ohem_ranks_positions_over_all_devices(rng):
    logits, classes = draw(rng, n=4)
    logits[0] += 8 * np.eye(4, dtype=np.float32)[np.where(classes[0] == 255, 0, classes[0])]  # all easy on one device
    relabel = jax.jit(functools.partial(ohem_targets, threshold=0.1, min_kept=30))
    rows = mesh_lib.batch_sharding(mesh_lib.make_mesh(data=4))
    whole = relabel(jnp.asarray(logits), jnp.asarray(classes))
    split = relabel(jax.device_put(logits, rows), jax.device_put(classes, rows))
    np.testing.assert_array_equal(whole, split)
    assert (np.asarray(whole)[0] == 255).mean() > 0.9


def test_ohem_keeps_nothing_where_nothing_is_labeled():
    logits, classes = jnp.ones((1, 4, 4, 3)), jnp.full((1, 4, 4), 255)
    assert (ohem_targets(logits, classes, 0.5, 5) == 255).all()


def mean_cross_entropy(logits, classes):
    probs = probability_of_truth(logits, classes)
    return -np.log(probs[classes != 255]).mean()


def test_per_pixel_losses_equal_the_twin(rng):
    labels = rng.integers(0, 4, (2, 16, 16)).astype(np.uint8)
    labels[:, :3] = 255
    levels = [rng.normal(size=(2, 16 // s, 16 // s, 4)).astype(np.float32) for s in (8, 4)]
    at = [labels[:, s // 2 :: s, s // 2 :: s].astype(np.int32) for s in (8, 4)]
    expected = [mean_cross_entropy(*pair) for pair in zip(levels, at, strict=True)]
    loss, terms = PerPixelObjective()(Pyramids(tuple(map(jnp.asarray, levels)), ()), jnp.asarray(labels))
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)
    np.testing.assert_allclose([terms["semantic_1"], terms["semantic_2"]], expected, rtol=1e-5)

    full = np.stack([twins.bilinear(x, (16, 16)) for x in levels[1]])
    auxiliary = rng.normal(size=levels[1].shape).astype(np.float32)
    objective = WithAuxiliary(PerPixelObjective("full_size"), 0.4, "finest")
    loss, terms = objective(Pyramids((jnp.asarray(levels[1]),), (), jnp.asarray(auxiliary)), jnp.asarray(labels))
    np.testing.assert_allclose(terms["semantic"], mean_cross_entropy(full, labels.astype(np.int32)), rtol=1e-4)
    np.testing.assert_allclose(loss, terms["semantic"] + 0.4 * mean_cross_entropy(auxiliary, at[1]), rtol=1e-5)


def test_ohem_changes_the_loss(rng):
    logits, classes = draw(rng, side=4)
    labels = np.repeat(np.repeat(classes, 4, 1), 4, 2).astype(np.uint8)
    probs = probability_of_truth(logits, classes)
    loss, _ = PerPixelObjective("finest", 0.3, 2)(Pyramids((jnp.asarray(logits),), ()), jnp.asarray(labels))
    np.testing.assert_allclose(loss, -np.log(probs[probs < 0.3]).mean(), rtol=1e-5)


def test_labels_are_never_interpolated(rng):
    labels = jnp.asarray(rng.integers(0, 4, (1, 8, 8)), jnp.uint8)
    _, same = fit_to_labels(jnp.zeros((1, 2, 2, 4)), labels, "full_size")
    np.testing.assert_array_equal(same, labels)


def combination(context, representation, procedure):
    config = config_lib.defaults()
    config.model.context, config.model.representation, config.model.strides = context, representation, (8, 4)
    config.training.procedure = procedure
    return config_lib.resolve(config)


WAYS = [("per_pixel", "raw"), ("auxiliary", "raw"), ("pyramid", "raw"), ("pyramid", "gt"), ("pyramid", "tp")]
# By default every context and every way is tried once; the other pairs are slow tests.
PAIRS = [
    pytest.param(context, *way, marks=() if context == "coarse_to_fine" or way[1] == "tp" else pytest.mark.slow)
    for context in CONTEXTS
    for way in WAYS
]


@pytest.mark.parametrize(("context", "representation", "procedure"), PAIRS)
def test_every_combination_learns_two_images(context, representation, procedure):
    """The loss falls by half, and inference finds what training has learned."""
    config = combination(context, representation, procedure)
    widths = {"semantic_width": 16, "key_width": 8, "unity_width": 8, "crop_px": 32, "strides": config.model.strides}
    model = build_segmenter(3, context=context, representation=representation, **widths).copy(backbone=Patches())
    num_steps = 60  # to the end of the schedule, so that the running statistics have caught up
    optimizer = sgd(0.1, num_steps, weight_decay=0.0)
    step = make_train_step(model, optimizer, experiment.make_objective(config), mesh_lib.make_mesh(data=1))
    state = initial_state(jax.tree.map(jnp.asarray, initial_variables(model, 0)), optimizer)
    # QGN normalizes the stage of stride 32, which needs more than one position per image.
    side = 64 if context.startswith("qgn") else 32
    batch = make_batch(5, n=2, side=side)
    # A stage of Layer Cascade learns from the positions that earlier stages leave over. In the end these are few and hard, and
    # the mean of their loss may rise.
    learned = "semantic" if context == "layer_cascade" else "loss"
    losses = []
    for _ in range(num_steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics[learned]))
    assert losses[-1] < 0.5 * losses[0], losses
    prediction = jax.jit(functools.partial(predict, model, threshold=0.5))(state.variables, images=batch["image"])
    assert len(prediction.semantic) == (2 if representation == "pyramid" else 1)
    stride = side // prediction.fused.shape[1]
    labels = batch["label"][:, stride // 2 :: stride, stride // 2 :: stride]
    assert (prediction.fused.argmax(-1) == labels)[labels != 255].mean() > 0.8
