"""Clipping, the moving average and freezing: in a step, on several devices, and in checkpoints."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from support.training import Batches, Record
from support.trees import assert_trees_equal

from pyrseg_jax.ahead_of_time.lowering import trace_training
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.models.blocks import apply_blocks
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.layers import ConvNormAct
from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.training.averaging import begin_average, move_average
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on
from pyrseg_jax.training.checkpoint_items import items_of
from pyrseg_jax.training.freezing import is_match
from pyrseg_jax.training.optimizer import OptimizerSettings, make_optimizer
from pyrseg_jax.training.schedules import make_schedule
from pyrseg_jax.training.scores import METRICS, BestScored, Scores
from pyrseg_jax.training.step import StepOptions, global_norm, initial_state, make_train_step
from pyrseg_jax.training.stopping import EarlyStopping
from pyrseg_jax.training.trainer import Schedule, Trainer

SIDE = 16


class Block(nn.Module):
    """A residual block with a normalization, as rows of equal blocks have them."""

    @nn.compact
    def __call__(self, x, train):
        return x + BatchNorm(is_active=True, name="bn")(nn.Conv(x.shape[-1], (3, 3), name="conv")(x), train)


class Backbone(nn.Module):
    """A stem, and two equal blocks, of which those in `always_running` are called as outside of training."""

    always_running: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x, train):
        x = ConvNormAct(8, 3, 2, name="stem")(x, train and "stem" not in self.always_running)
        if self.always_running:
            for name in ("block1", "block2"):
                x = Block(name=name)(x, train and name not in self.always_running)
            return x
        return apply_blocks(self, Block, ("block1", "block2"), x, train)


class Memory(nn.Module):
    """A bias, and a state of its own that is not that of a normalization."""

    @nn.compact
    def __call__(self, x, train):
        seen = self.variable("batch_stats", "seen", jnp.zeros, x.shape[-1:])
        if train and not self.is_initializing():
            seen.value = 0.5 * seen.value + 0.5 * x.astype(jnp.float32).mean((0, 1, 2))
        return x + self.param("bias", nn.initializers.zeros, x.shape[-1:])


class Net(nn.Module):
    """Backbone, projection and classifier, with a dropout whose draw depends on the step."""

    always_running: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, images, train=False):
        x = Backbone(self.always_running, name="backbone")(images, train)
        x = ConvNormAct(8, name="project")(x, train and "project" not in self.always_running)
        x = Memory(name="memory")(x, train)
        return nn.Dense(3, name="classify_1")(nn.Dropout(0.1, deterministic=not train)(x))


def objective(logits, labels):
    """Return a cross entropy that is large enough to be clipped."""
    wanted = jax.nn.one_hot(labels[:, ::2, ::2] % 3, 3)
    return -8 * (jax.nn.log_softmax(logits.astype(jnp.float32)) * wanted).sum(-1).mean(), {}


def batch_of(seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    return {"image": images, "label": (images[..., 0] > 120).astype(np.uint8)}


def optimizer_of(options=StepOptions(), **settings):  # noqa: B008
    settings = {"frozen": options.frozen, "weight_decay": 0.1} | settings
    return make_optimizer(make_schedule("constant", 0.05, 10), OptimizerSettings(**settings))


@functools.cache
def run(options, num_steps=3, devices=1, is_sharded=False, accumulate=1, **settings):
    """Return the states before and after each step, and the metrics of each step."""
    settings = dict(settings)
    mesh, optimizer = mesh_lib.make_mesh(devices), optimizer_of(options, **settings)
    state = initial_state(variables(), optimizer, options)
    sharding = mesh_lib.state_sharding(mesh, state, is_sharded)
    step = make_train_step(
        Net(), optimizer, objective, mesh, accumulate=accumulate, options=options, state_sharding=sharding
    )
    states, recorded = [jax.device_get(state)], []
    state = jax.device_put(state, sharding)
    for seed in range(num_steps):
        state, metrics = step(state, mesh_lib.images_to_devices(mesh, batch_of(seed)))
        states.append(jax.device_get(state))
        recorded.append(jax.device_get(metrics))
    return states, recorded


@functools.cache
def variables():
    found = initial_variables(Net(), 0, SIDE)
    flat = flatten_dict(found)
    # Statistics that are not those of any batch, so that their use shows; and a zero with a sign, which sums would lose.
    flat = {p: x + 0.3 if p[0] == "batch_stats" else np.array(x) for p, x in flat.items()}
    for path in flat:
        if path[-1] == "bias":
            flat[path] = np.where(np.arange(flat[path].size) == 0, -0.0, flat[path]).astype(np.float32)
    return unflatten_dict(flat)


def bits(x):
    return np.asarray(x).tobytes()


# --- clipping


def test_a_clipped_step_is_that_of_the_scaled_gradient():
    """The recorded norm is that of the gradient before it is clipped, and a small gradient stays as it is."""
    plain = {"momentum": 0.0, "weight_decay": 0.0}
    (before, *_), (metrics,) = run(StepOptions(), 1, **plain)
    after = run(StepOptions(), 1, **plain)[0][1]
    gradient = jax.tree.map(lambda a, b: (np.float64(a) - b) / 0.05, before.params, after.params)
    norm = float(metrics["gradient_norm"])
    np.testing.assert_allclose(global_norm(gradient), norm, rtol=1e-3)
    for limit, factor in ((norm / 4, 0.25), (norm * 2, 1.0)):
        (_, clipped), (metrics,) = run(StepOptions(clip_norm=limit), 1, **plain)
        np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
        np.testing.assert_allclose(metrics["clip_factor"], factor, rtol=1e-5)
        expected = jax.tree.map(lambda p, g: p - 0.05 * factor * g, before.params, gradient)  # noqa: B023
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), clipped.params, expected)
    assert "clip_factor" not in run(StepOptions(), 1, **plain)[1][0]


# --- the moving average


def test_the_average_follows_the_variables_and_does_not_change_them():
    options = StepOptions(ema=0.8)
    states, _ = run(options)
    average = begin_average(states[0].variables)
    for step, state in enumerate(states[1:]):
        average = move_average(average, state.variables, step, 0.8)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), states[-1].average, average)
    assert_trees_equal(states[-1].variables, run(StepOptions())[0][-1].variables)
    assert states[-1].predicting is states[-1].average
    plain = run(StepOptions())[0][-1]
    assert_trees_equal(plain.predicting, plain.variables)


# --- freezing


FROZEN = [("backbone",), ("backbone/stem", "backbone/block2/*"), ("*/bn",), ("project/conv", "classify_1", "memory")]


@pytest.mark.parametrize(("patterns", "accumulate"), [*((patterns, 1) for patterns in FROZEN), (FROZEN[1], 2)])
def test_frozen_variables_stay_bit_for_bit(patterns, accumulate):
    """Parameters, batch statistics and the moving average, with weight decay and momentum; all others change."""
    states, _ = run(StepOptions(frozen=patterns, ema=0.5), accumulate=accumulate)
    first, last = states[0], states[-1]
    for trees in ((first.variables, last.variables), (first.average, last.average)):
        before, after = (flatten_dict(tree) for tree in trees)
        for path, value in before.items():
            if is_match(path[1:], patterns):
                assert bits(after[path]) == bits(value), path
            elif path != ("params", "classify_1", "bias"):  # it begins at 0, and weight decay does not show
                assert (after[path] != value).any(), path


@pytest.mark.parametrize("patterns", FROZEN[:2], ids=",".join)
def test_frozen_normalizations_use_their_running_statistics(patterns):
    """A network that calls these layers as outside of training takes the same step; one that does not takes another."""
    plain = {"momentum": 0.0, "weight_decay": 0.0}
    states, (metrics, *_) = run(StepOptions(frozen=patterns), 1, **plain)
    names = ("stem", "block1", "block2") if patterns == ("backbone",) else ("stem", "block2")
    mesh, optimizer = mesh_lib.make_mesh(1), optimizer_of(**plain)
    step = make_train_step(Net(names), optimizer, objective, mesh)
    state = jax.device_put(initial_state(variables(), optimizer), mesh_lib.replicated(mesh))
    expected, found = step(state, mesh_lib.images_to_devices(mesh, batch_of(0)))
    np.testing.assert_allclose(metrics["loss"], found["loss"], rtol=1e-5)
    assert abs(metrics["loss"] - run(StepOptions(), 1, **plain)[1][0]["loss"]) > 1e-3
    after, expected = flatten_dict(states[-1].params), flatten_dict(jax.device_get(expected.params))
    for path in after:
        if not is_match(path, patterns):
            np.testing.assert_allclose(after[path], expected[path], rtol=1e-4, atol=1e-5, err_msg="/".join(path))


def test_no_gradient_is_computed_for_what_is_frozen():
    def flops(*patterns):
        options = StepOptions(frozen=patterns)
        traced = trace_training(
            Net(), optimizer_of(options), objective, mesh_lib.make_mesh(1), batch_size=4, crop_px=SIDE, options=options
        )
        return traced.lower().cost_analysis()["flops"]

    everything = flops()
    assert flops("backbone") < 0.5 * everything
    assert flops("backbone/stem") < everything
    assert flops("project") < everything


# --- several devices, and everything at once


EVERYTHING = StepOptions(clip_norm=0.5, ema=0.9, frozen=("backbone/stem",))


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_four_devices_take_the_steps_of_one(name):
    """With a sharded state. Rounding differs, and Adam magnifies it where gradients are near zero, so epsilon is large."""
    settings = {"name": name, "epsilon": 0.01}
    (*_, one), recorded = run(EVERYTHING, **settings)
    (*_, four), found = run(EVERYTHING, devices=4, is_sharded=True, **settings)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4)
    jax.tree.map(close, four.average, one.average)
    jax.tree.map(close, four.params, one.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3), found, recorded)


def test_the_report_of_a_compilation_counts_adam_and_the_average():
    def arguments(options, name):
        optimizer, mesh = optimizer_of(options, name=name), mesh_lib.make_mesh(1)
        traced = trace_training(Net(), optimizer, objective, mesh, batch_size=4, crop_px=SIDE, options=options)
        return traced.lower().compile().memory_analysis().argument_size_in_bytes

    size = sum(x.nbytes for x in jax.tree.leaves(variables()["params"]))
    plain, adam = arguments(StepOptions(), "sgd"), arguments(StepOptions(ema=0.9), "adamw")
    assert adam - plain >= 2 * size


# --- checkpoints


def fit(directory, last_step, options, *, evaluate, stopping=EarlyStopping(), metric="miou", record=None):  # noqa: B008
    """Train until a step with all options, resuming from the newest checkpoint in the directory."""
    mesh, optimizer = mesh_lib.make_mesh(1), optimizer_of(options, name="adamw")
    checkpoints = Checkpoints(directory, keep_last=2, metric=metric)
    sharding = mesh_lib.replicated(mesh)
    fresh = functools.partial(initial_state, variables(), optimizer, options)
    state = checkpoints.restore(abstract_on(jax.eval_shape(fresh), sharding)) or jax.device_put(fresh(), sharding)
    trainer = Trainer(
        shared_step(options),
        functools.partial(Batches, make=batch_of),
        functools.partial(mesh_lib.images_to_devices, mesh),
        evaluate,
        checkpoints,
        record or Record(),
        lambda step: 0.1,
        Schedule(last_step, batch_size=4, log_every=1, evaluate_every=2, save_every=1),
        stopping=stopping,
    )
    try:
        return jax.device_get(trainer.fit(state)), trainer
    finally:
        checkpoints.close()


def test_an_evaluation_that_was_interrupted_is_repeated(tmp_path):
    """The state is saved before it is evaluated, and the score after it."""
    evaluated = []

    def evaluate(step, state):
        if step == 4 and step not in evaluated:
            evaluated.append(step)
            raise KeyboardInterrupt
        evaluated.append(step)
        return {"miou": 0.5}

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", 6, EVERYTHING, evaluate=evaluate)
    fit(tmp_path / "run", 6, EVERYTHING, evaluate=evaluate)
    assert evaluated == [2, 4, 4, 6]


@functools.cache
def shared_step(options):
    return make_train_step(
        Net(), optimizer_of(options, name="adamw"), objective, mesh_lib.make_mesh(1), options=options
    )


def test_a_resumed_run_continues_its_average_and_predicts_with_it(tmp_path):
    evaluate = lambda step, state: {"miou": 0.5}  # noqa: E731
    straight, _ = fit(tmp_path / "straight", 5, EVERYTHING, evaluate=evaluate)
    for last_step in (1, 3, 5):
        resumed, _ = fit(tmp_path / "parts", last_step, EVERYTHING, evaluate=evaluate)
    assert_trees_equal(resumed, straight)
    checkpoints = Checkpoints(tmp_path / "parts", is_reader=True)
    like = abstract_on(straight.variables, mesh_lib.replicated(mesh_lib.make_mesh(1)))
    step, found = checkpoints.restore_variables(like)
    checkpoints.close()
    assert step == 5
    assert_trees_equal(jax.device_get(found), straight.average)


def test_a_checkpoint_without_an_average_has_the_items_of_earlier_versions():
    state = run(StepOptions())[0][0]
    items = items_of(state)
    assert set(items["training"]) == {"step", "opt_state"}
    assert set(items["variables"]) == {"params", "batch_stats"}


# --- the best checkpoint, and the early end


@pytest.mark.parametrize(("metric", "kept"), [("miou", 6), ("loss", 4)])
def test_the_best_checkpoint_is_that_of_the_metric(tmp_path, metric, kept):
    values = {2: (0.3, 1.2), 4: (0.2, 0.9), 6: (0.8, 1.1), 8: (0.1, 1.0), 10: (0.1, 3.0)}
    evaluate = lambda step, state: dict(zip(("miou", "loss"), values[step], strict=True))  # noqa: E731
    fit(tmp_path / "run", 10, StepOptions(), evaluate=evaluate, metric=metric)
    assert sorted(int(p.name) for p in (tmp_path / "run").iterdir() if p.name.isdigit()) == [kept, 9, 10]


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_scores_of_any_metric_survive_and_those_of_another_are_named(tmp_path, metric, caplog):
    path = epath.Path(tmp_path) / "scores.json"
    scores = Scores(path, metric)
    for step, score in ((2, 0.25), (4, 0.5), (6, 0.5)):
        scores.add(step, score, is_written=True)
    again = Scores(path, metric)
    assert again.by_step() == [(2, 0.25), (4, 0.5), (6, 0.5)]
    assert caplog.text == ""
    best = BestScored(again).should_preserve([type("Info", (), {"step": step}) for step in (2, 4, 6, 8)], context=None)
    assert best == ([True, False, False, False] if metric == "loss" else [False, False, True, False])
    other = "miou" if metric == "loss" else "loss"
    assert Scores(path, other).by_step() == []
    assert "the next evaluations replace it" in caplog.text


LOSSES = {2: 1.0, 4: 0.9, 6: 0.95, 8: 0.89, 10: 0.895, 12: 0.5}


@pytest.mark.parametrize(
    ("patience", "min_delta", "end", "reason"),
    [
        (1, 0.0, 6, r"loss did not improve in 1 evaluation \(patience=1\): the best is 0.9000 at step 4"),
        (2, 0.0, 12, None),
        (
            2,
            0.05,
            8,
            r"did not improve by more than 0.05 in 2 evaluations \(patience=2\): the best is 0.9000 at step 4",
        ),
        (2, 0.2, 6, r"the best is 1.0000 at step 2"),
        (None, 9.0, 12, None),
    ],
)
def test_training_ends_when_the_score_does_not_improve(tmp_path, caplog, patience, min_delta, end, reason):
    """However often it is interrupted, and it says so again when it is started again."""
    rule, evaluated = EarlyStopping(patience, min_delta), []

    def evaluate(step, state):
        evaluated.append(step)
        return {"loss": LOSSES[step]}

    settings = {"evaluate": evaluate, "stopping": rule, "metric": "loss"}
    record = Record()
    with caplog.at_level("INFO"):
        state, trainer = fit(tmp_path / "run", 12, StepOptions(), record=record, **settings)
    assert (int(state.step), evaluated) == (end, list(range(2, end + 1, 2)))
    assert [step for step, _ in record.ends] == ([] if reason is None else [end])
    if reason is not None:
        caplog.clear()
        with caplog.at_level("INFO"):
            again, trainer = fit(tmp_path / "run", 12, StepOptions(), **settings)
        assert int(again.step) == end and evaluated[-1] == end
        assert f"training ends at step {end}: {trainer.stop_reason}" in caplog.text
        assert re.search(reason, trainer.stop_reason)
