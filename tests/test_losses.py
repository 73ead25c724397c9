"""Losses against slow twins and finite differences, void included, on one device and on four."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import slow_losses, twins
from support.double import float64

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.segmenter import Pyramids
from pyrseg_jax.pyramid import build_targets, specialize
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.training.losses import LOSSES, LevelTargets, LossSettings, SemanticLosses
from pyrseg_jax.training.losses.boundary import boundary_loss, near_border
from pyrseg_jax.training.losses.cross_entropy import cross_entropy
from pyrseg_jax.training.losses.dice import dice_loss
from pyrseg_jax.training.losses.focal import focal_loss, unity_loss
from pyrseg_jax.training.losses.lovasz import descending_order, jaccard_steps, lovasz_loss
from pyrseg_jax.training.objective import PerPixelObjective, PyramidObjective

VOID = 255
WEIGHTS = (0.5, 3.0, 0.0, 1.25)
# Loss → (ours, slow twin), both of logits and classes.
CASES = {
    "cross_entropy": (cross_entropy, slow_losses.cross_entropy),
    "weighted": (
        functools.partial(cross_entropy, class_weights=WEIGHTS),
        functools.partial(slow_losses.cross_entropy, class_weights=WEIGHTS),
    ),
    "smoothed": (
        functools.partial(cross_entropy, class_weights=WEIGHTS, label_smoothing=0.1),
        functools.partial(slow_losses.cross_entropy, class_weights=WEIGHTS, smoothing=0.1),
    ),
    "focal": (focal_loss, functools.partial(slow_losses.focal, gamma=2.0)),
    "focal_weighted": (
        functools.partial(focal_loss, gamma=0.5, class_weights=WEIGHTS),
        functools.partial(slow_losses.focal, gamma=0.5, class_weights=WEIGHTS),
    ),
    "dice": (dice_loss, slow_losses.dice),
    "lovasz": (lovasz_loss, slow_losses.lovasz),
    "boundary": (
        lambda logits, classes: boundary_loss(logits, classes, classes, 1, WEIGHTS, 0.1),
        lambda logits, classes: slow_losses.cross_entropy(
            logits, np.where(slow_losses.near_border(classes, 1), classes, VOID), WEIGHTS, 0.1
        ),
    ),
}


def draw(rng, n=3, side=6, num_classes=4, void=0.25):
    """Draw patches of equal classes with void in between; the last image has one class, and class 3 occurs nowhere."""
    logits = 2 * rng.normal(size=(n, side, side, num_classes))
    classes = np.kron(rng.integers(0, 3, (n, side // 2, side // 2)), np.ones((2, 2), int))
    classes[-1] = 1
    return logits, np.where(rng.random(classes.shape) < void, VOID, classes).astype(np.int32)


@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_gradient_equal_the_twin(rng, name):
    ours, twin = CASES[name]
    logits, classes = draw(rng)
    classes[1] = VOID
    assert (classes[0] == 2).any() and (classes[0] == VOID).any()
    with float64():
        value, gradient = jax.jit(jax.value_and_grad(ours))(jnp.asarray(logits), jnp.asarray(classes))
    np.testing.assert_allclose(value, twin(logits, classes), rtol=1e-12)
    assert not gradient[classes == VOID].any()
    step = 1e-6
    for at in rng.permutation(np.argwhere(np.ones(logits.shape)))[:24]:
        moved = [logits.copy(), logits.copy()]
        for sign, each in zip((1, -1), moved, strict=True):
            each[tuple(at)] += sign * step
        slope = (twin(moved[0], classes) - twin(moved[1], classes)) / (2 * step)
        np.testing.assert_allclose(gradient[tuple(at)], slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_four_devices_compute_what_one_does(rng, name):
    ours, _ = CASES[name]
    logits, classes = draw(rng, n=4)
    classes[1] = VOID
    with float64():
        compute = jax.jit(jax.value_and_grad(ours))
        arrays = jnp.asarray(logits), jnp.asarray(classes)
        expected = compute(*arrays)
        rows = mesh_lib.image_sharding(mesh_lib.make_mesh(2, 2))
        found = compute(*(jax.device_put(array, rows) for array in arrays))
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("case", ["nothing", "one_class", "certain"])
def test_extreme_batches_have_finite_losses_and_gradients(rng, name, case):
    """In float32 and bfloat16: nothing labeled, a single class, and logits so large that probabilities are 0 and 1."""
    ours, _ = CASES[name]
    logits, classes = draw(rng)
    if case == "nothing":
        classes[:] = VOID
    elif case == "one_class":
        classes[classes != VOID] = 0
    else:
        logits = 200.0 * np.eye(4)[rng.integers(0, 4, classes.shape)]
    for dtype in (jnp.float32, jnp.bfloat16):
        value, gradient = jax.value_and_grad(ours)(jnp.asarray(logits, dtype), jnp.asarray(classes))
        assert value.dtype == jnp.float32 and gradient.dtype == dtype
        assert np.isfinite(value) and np.isfinite(gradient.astype(jnp.float32)).all()
        if case == "nothing":
            assert value == 0 and not gradient.any()


@pytest.mark.parametrize("gamma", [0.0, 2.0, 0.5])
def test_the_unity_loss_equals_the_twin(rng, gamma):
    logits, is_unit = rng.normal(size=(2, 5, 5)) * 3, rng.choice([0, 1, VOID], (2, 5, 5)).astype(np.int32)
    with float64():
        value, gradient = jax.value_and_grad(unity_loss)(jnp.asarray(logits), jnp.asarray(is_unit), gamma)
    np.testing.assert_allclose(value, slow_losses.unity(logits, is_unit, gamma), rtol=1e-12)
    assert not gradient[is_unit == VOID].any()
    assert unity_loss(jnp.zeros((1, 2, 2)), jnp.full((1, 2, 2), VOID), gamma) == 0
    sure = jax.value_and_grad(unity_loss)(jnp.array([[[1e4, -1e4]]]), jnp.array([[[1, 1]]]), gamma)
    assert np.isfinite(sure[0]) and np.isfinite(sure[1]).all()


@pytest.mark.parametrize("distance", [0, 1, 3])
def test_positions_near_a_border_equal_the_twin(rng, distance):
    _, labels = draw(rng, side=10)
    np.testing.assert_array_equal(near_border(jnp.asarray(labels), distance), slow_losses.near_border(labels, distance))


@given(st.lists(st.sampled_from([0, 1]), min_size=9, max_size=9).filter(any))
def test_the_steps_of_the_jaccard_loss_are_its_differences(truth):
    order = list(range(len(truth)))
    values = [slow_losses.jaccard_loss(order[:k], np.array(truth)) for k in range(len(truth) + 1)]
    found = jaccard_steps(jnp.asarray(truth, jnp.float32)[None, None])[0, 0]
    np.testing.assert_allclose(found, np.diff(values), rtol=1e-6, atol=1e-7)


def test_the_lovasz_loss_of_a_decided_prediction_is_one_minus_its_iou(rng):
    _, classes = draw(rng)
    predicted = rng.integers(0, 4, classes.shape)
    ious = []
    for truth, ours in zip(classes, predicted, strict=True):
        cared = truth != VOID
        present = np.unique(truth[cared])
        ious.append(
            np.mean(
                [((truth == c) & (ours == c)).sum() / (((truth == c) | (ours == c)) & cared).sum() for c in present]
            )
        )
    found = lovasz_loss(jnp.asarray(100.0 * np.eye(4)[predicted]), jnp.asarray(classes))
    np.testing.assert_allclose(found, 1 - np.mean(ious), rtol=1e-5)


@pytest.mark.parametrize("num_positions, step", [(1, 2.0**-31), (2, 2.0**-31), (3136, 2.0**-20), (16385, 2.0**-17)])
def test_errors_are_put_in_descending_order_within_the_documented_step(rng, num_positions, step):
    errors = rng.random((2, 3, num_positions)).astype(np.float32) ** 8
    errors[0, 0, -1], errors[1, 1, :] = 1.0, 1.0  # 1 has no step of its own
    order = np.asarray(descending_order(jnp.asarray(errors)))
    np.testing.assert_array_equal(np.sort(order, -1), np.broadcast_to(np.arange(num_positions), order.shape))
    found = np.take_along_axis(errors, order, -1)
    assert np.all(np.diff(found, axis=-1) <= step)
    assert np.all(np.abs(found - -np.sort(-errors, -1)) <= step)


# --- objectives


def pyramids(rng, n=2, num_classes=4):
    labels = np.kron(rng.integers(0, num_classes, (n, 4, 4)), np.ones((8, 8), int)).astype(np.uint8)
    labels[:, 3:6, :9] = VOID
    labels[0, 16:20] = 1
    semantic = [rng.normal(size=(n, 32 // s, 32 // s, num_classes)).astype(np.float32) for s in (16, 8, 4)]
    unity = [3 * rng.normal(size=(n, 32 // s, 32 // s)).astype(np.float32) for s in (16, 8)]
    return Pyramids(tuple(map(jnp.asarray, semantic)), tuple(map(jnp.asarray, unity))), jnp.asarray(labels)


@jax.jit
def targets_of(predicted, labels):
    """Return the targets before and after the relabeling."""
    whole = build_targets(labels, (16, 8, 4))
    return whole, specialize(whole, predicted.unity)


MIXED = SemanticLosses(
    {"cross_entropy": 0.5, "focal": 2.0, "dice": 1.0, "lovasz": 0.25, "boundary": 3.0}, LossSettings(WEIGHTS)
)


def test_a_pyramid_learns_from_the_losses_of_each_level(rng):
    predicted, labels = pyramids(rng)
    loss, terms = jax.jit(PyramidObjective((16, 8, 4), losses=MIXED, unity_weight=0.5, unity_gamma=1.0))(
        predicted, labels
    )
    whole, targets = targets_of(predicted, labels)
    semantic, unity = [np.asarray(x) for x in targets.semantic], [np.asarray(x) for x in targets.unity]
    assert any((s != w).any() for s, w in zip(semantic, whole.semantic, strict=True))  # some cells are done
    near = slow_losses.near_border(np.asarray(whole.semantic[-1]), 2)
    logits = [np.asarray(x, np.float64) for x in predicted.semantic]

    def mean(twin, **options):
        return np.mean([twin(*pair, **options) for pair in zip(logits, semantic, strict=True)])

    expected = {
        "cross_entropy": mean(slow_losses.cross_entropy, class_weights=WEIGHTS),
        "focal": mean(slow_losses.focal, gamma=2.0, class_weights=WEIGHTS),
        "dice": mean(slow_losses.dice),
        "lovasz": mean(slow_losses.lovasz),
        "boundary": slow_losses.cross_entropy(logits[-1], np.where(near, semantic[-1], VOID), WEIGHTS),
        "unity": np.mean(
            [slow_losses.unity(np.asarray(u, np.float64), t, 1.0) for u, t in zip(predicted.unity, unity, strict=True)]
        ),
    }
    assert {name: float(terms[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
    total = sum(MIXED.weights[name] * expected[name] for name in MIXED.weights)
    np.testing.assert_allclose(loss, total + 0.5 * expected["unity"], rtol=1e-5)
    np.testing.assert_allclose(terms["semantic"], total, rtol=1e-5)
    assert {"semantic_1", "semantic_2", "semantic_3", "unity_1", "unity_2"} <= terms.keys()


def test_the_default_objective_is_the_paper_s_loss(rng):
    predicted, labels = pyramids(rng)
    whole, targets = targets_of(predicted, labels)
    expected, *_ = twins.loss(
        *([np.asarray(x) for x in xs] for xs in (predicted.semantic, predicted.unity, targets.semantic, targets.unity))
    )
    objective = PyramidObjective((16, 8, 4))
    loss, terms = jax.jit(objective)(predicted, labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert objective.losses.is_plain
    assert terms.keys() == {"semantic", "unity", "semantic_1", "semantic_2", "semantic_3", "unity_1", "unity_2"}
    # The same loss on the way of all other objectives.
    same, _ = PyramidObjective((16, 8, 4), losses=SemanticLosses({"cross_entropy": 1.0}, LossSettings((1.0,) * 4)))(
        predicted, labels
    )
    np.testing.assert_allclose(same, loss, rtol=1e-6)


def test_hard_example_mining_keeps_the_hardest_cells_of_each_level(rng):
    """At least 16 cells of the finest level, so 4 of the next and 1 of the coarsest, among those that are not done."""
    predicted, labels = pyramids(rng)
    whole, targets = targets_of(predicted, labels)
    expected = []
    for logits, classes, kept in zip(predicted.semantic, targets.semantic, (1, 4, 16), strict=True):
        classes = np.asarray(classes)
        at = slow_losses.labeled(classes)
        p = np.array([slow_losses.softmax(np.asarray(logits[i], np.float64))[classes[i]] for i in at])
        hard = p[p < 0.02] if (p < 0.02).sum() >= min(kept, len(p)) else np.sort(p)[:kept]
        expected.append(-np.log(hard).mean() if len(hard) else 0.0)
    objective = PyramidObjective((16, 8, 4), ohem_threshold=0.02, ohem_min_kept=16)
    loss, terms = jax.jit(objective)(predicted, labels)
    np.testing.assert_allclose([terms[f"semantic_{i}"] for i in (1, 2, 3)], expected, rtol=1e-5)
    plain, plain_terms = jax.jit(PyramidObjective((16, 8, 4)))(predicted, labels)
    assert loss > plain and terms["unity"] == plain_terms["unity"]


def test_a_pixel_objective_takes_the_same_losses(rng):
    predicted, labels = pyramids(rng)
    alone = Pyramids(predicted.semantic[-1:], ())
    loss, terms = jax.jit(PerPixelObjective(losses=MIXED))(alone, labels)
    classes = np.asarray(labels[:, 2::4, 2::4], np.int32)
    logits = np.asarray(predicted.semantic[-1], np.float64)
    near = slow_losses.near_border(classes, 2)
    expected = {
        "dice": slow_losses.dice(logits, classes),
        "lovasz": slow_losses.lovasz(logits, classes),
        "boundary": slow_losses.cross_entropy(logits, np.where(near, classes, VOID), WEIGHTS),
    }
    assert {name: float(terms[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(loss, sum(MIXED.weights[name] * terms[name] for name in MIXED.weights), rtol=1e-6)
    # Eight pixels near a border are eight positions at full size.
    full = PerPixelObjective("full_size", losses=SemanticLosses({"cross_entropy": 1.0, "boundary": 1.0}))
    _, terms = full(alone, labels)
    everywhere = slow_losses.near_border(np.asarray(labels), 8)[np.asarray(labels) != VOID].all()
    assert everywhere == (terms["boundary"] == terms["cross_entropy"])


def test_the_keys_become_the_objective():
    changes = {
        "loss.dice": 0.5,
        "loss.lovasz": 2.0,
        "loss.label_smoothing": 0.1,
        "loss.unity": 3.0,
        "loss.unity_gamma": 1.5,
    }
    changes |= {
        "loss.focal_gamma": 4.0,
        "loss.boundary_px": 16,
        "training.ohem_threshold": 0.7,
        "training.ohem_min_kept": 40,
    }
    config = config_lib.changed(config_lib.Config(), changes | {"training.accumulate": 4})
    objective = experiment.make_objective(config, (1.0, 2.0))
    assert objective.losses.weights == {"cross_entropy": 1.0, "focal": 0.0, "dice": 0.5, "lovasz": 2.0, "boundary": 0.0}
    assert objective.losses.settings == LossSettings((1.0, 2.0), 0.1, 4.0, 16)
    assert (objective.unity_weight, objective.unity_gamma) == (3.0, 1.5)
    assert (objective.ohem_threshold, objective.ohem_min_kept) == (0.7, 10)
    assert experiment.make_objective(config_lib.resolve(config_lib.defaults())).losses.is_plain


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"tversky": 1.0}, "weights: 'tversky' is not a loss: expected some of cross_entropy, focal"),
        ({"dice": -1.0, "focal": 1.0}, "expected none below 0, and at least one above"),
        ({"dice": 0.0}, "expected none below 0, and at least one above"),
    ],
)
def test_weights_that_make_no_loss_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        SemanticLosses(weights)


def test_every_loss_has_a_key_and_a_meaning():
    assert set(LOSSES) <= set(config_lib.Config().loss.__dataclass_fields__)
    assert all(spec.meaning for spec in LOSSES.values())
    with pytest.raises(
        UserError, match=r"config\.loss\.lovasch is not a configuration key: did you mean config\.loss\.lovasz"
    ):
        config_lib.changed(config_lib.Config(), {"loss.lovasch": 1.0})
    assert LevelTargets._fields == ("logits", "classes", "hard", "labels", "stride_px")
