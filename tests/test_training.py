"""The training step against golden numbers, the optimizer against a plain twin, and a resumed run against a straight one."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.training import Batches, Record, fresh_state, make_batch, sgd, tiny_model
from support.trees import assert_trees_equal

from pyrseg_jax.conventions import VOID
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on
from pyrseg_jax.training.objective import PyramidObjective
from pyrseg_jax.training.schedules import poly_schedule
from pyrseg_jax.training.step import MAX_JOINED_SIZE, global_norm, initial_state, make_train_step
from pyrseg_jax.training.trainer import Schedule, Trainer


class CountingObjective(PyramidObjective):
    """The paper's objective; counts how often it is called, which is how often the step is traced."""

    num_traces = 0

    def __call__(self, predicted, labels):
        CountingObjective.num_traces += 1
        return super().__call__(predicted, labels)


OBJECTIVE = CountingObjective()


@functools.cache
def step_on(num_devices):
    """Return a mesh, an optimizer and a step. The whole file shares them, because compiling takes most of the time here."""
    mesh, optimizer = mesh_lib.make_mesh(data=num_devices), sgd()
    return mesh, optimizer, make_train_step(tiny_model(), optimizer, OBJECTIVE, mesh)


def run_steps(num_devices, batches, seed=0):
    mesh, optimizer, step = step_on(num_devices)
    state = jax.device_put(fresh_state(optimizer, seed), mesh_lib.replicated(mesh))
    losses = []
    for batch in batches:
        state, metrics = step(state, mesh_lib.images_to_devices(mesh, batch))
        losses.append(float(metrics["loss"]))
    return jax.device_get(state), losses


def test_golden_step():
    """Two steps of a fixed network on a fixed batch.

    If these numbers change, training has changed: initialization, network, targets, loss, gradient or optimizer. If that was
    intended, put the new numbers here, and explain in the commit why they changed.
    """
    state, losses = run_steps(1, [make_batch()] * 2)
    norm = float(optax.global_norm(state.params))
    np.testing.assert_allclose(losses, GOLDEN_LOSSES, rtol=2e-4)
    np.testing.assert_allclose(norm, GOLDEN_NORM, rtol=1e-5)
    assert int(state.step) == 2


GOLDEN_LOSSES, GOLDEN_NORM = (2.368299, 2.339876), 82.352547


def test_global_norm_is_that_of_all_arrays(rng):
    shapes = [(3,), (5,), (2, 3), (), (1, 1, 4, 2), (MAX_JOINED_SIZE + 1,)]
    tree = {str(shape): jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes}
    every = np.concatenate([np.ravel(x) for x in tree.values()])
    np.testing.assert_allclose(global_norm(tree), np.linalg.norm(every), rtol=1e-6)
    for shape in shapes:  # a single array has nothing to be joined with
        alone = tree[str(shape)]
        np.testing.assert_allclose(global_norm({"alone": alone}), np.linalg.norm(np.ravel(alone)), rtol=1e-6)


def test_many_steps_are_traced_once():
    run_steps(1, [make_batch()])  # traces the step, unless another test did
    num_traces = OBJECTIVE.num_traces
    assert num_traces == 1
    run_steps(1, [make_batch(seed) for seed in range(3)])
    assert OBJECTIVE.num_traces == num_traces


def test_two_images_are_memorized():
    batch = {name: array[[0, 1, 0, 1]] for name, array in make_batch(5).items()}
    _, losses = run_steps(1, [batch] * 35)
    assert losses[-1] < 0.35 * losses[0], losses


def test_an_all_void_batch_changes_parameters_by_weight_decay_alone():
    batch = make_batch()
    batch["label"][:] = VOID
    mesh, optimizer, step = step_on(1)
    before = jax.device_get(fresh_state(optimizer))
    state, metrics = step(jax.device_put(before, mesh_lib.replicated(mesh)), mesh_lib.images_to_devices(mesh, batch))
    assert metrics["loss"] == 0
    assert metrics["gradient_norm"] == 0
    decayed = jax.tree.map(lambda p: p * (1 - 0.05 * 1e-4), before.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), jax.device_get(state.params), decayed)


def test_optimizer_equals_sgd_with_coupled_decay_and_a_faster_head():
    optimizer = sgd(learning_rate=0.1, steps=10, momentum=0.9, weight_decay=0.01, head_multiplier=10)
    params = {"backbone": {"w": jnp.array(2.0)}, "context": {"w": jnp.array(3.0)}}
    state = optimizer.init(params)
    velocity = {"backbone": 0.0, "context": 0.0}
    expected = {"backbone": 2.0, "context": 3.0}
    for step in range(4):
        gradients = jax.tree.map(lambda p: p * 0.5 + 1, params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        rate = 0.1 * (1 - step / 10) ** 0.9
        for name, multiplier in (("backbone", 1), ("context", 10)):
            gradient = expected[name] * 0.5 + 1 + 0.01 * expected[name]
            velocity[name] = 0.9 * velocity[name] + gradient
            expected[name] -= multiplier * rate * velocity[name]
            np.testing.assert_allclose(params[name]["w"], expected[name], rtol=1e-5)


def test_schedule_warms_up_and_ends_at_zero():
    rates = [float(poly_schedule(0.2, 100, 0.9, warmup_steps=10)(step)) for step in range(101)]
    for step, rate in enumerate(rates):
        np.testing.assert_allclose(rate, 0.2 * (1 - step / 100) ** 0.9 * min(1, (step + 1) / 10), rtol=1e-5, atol=1e-7)


# --- the trainer


def nothing(step, state):
    return {"miou": None}


def fit(directory, last_step, *, evaluate=nothing, record=None, save_every=2, train_step=None, log_every=1):
    """Train until a step, resuming from the newest checkpoint in the directory."""
    mesh, optimizer, step = step_on(1)
    checkpoints = Checkpoints(directory, keep_last=2)
    sharding = mesh_lib.replicated(mesh)
    state = checkpoints.restore(abstract_on(jax.eval_shape(lambda: fresh_state(optimizer)), sharding))
    if state is None:
        state = jax.device_put(fresh_state(optimizer), sharding)
    trainer = Trainer(
        train_step or step,
        Batches,
        functools.partial(mesh_lib.images_to_devices, mesh),
        evaluate,
        checkpoints,
        record or Record(),
        poly_schedule(0.05, 40),
        Schedule(last_step, batch_size=4, log_every=log_every, evaluate_every=2, save_every=save_every),
    )
    try:
        return trainer.fit(state)
    finally:
        checkpoints.close()


def test_a_resumed_run_equals_the_straight_run(tmp_path):
    straight = fit(tmp_path / "straight", 5)
    for last_step in (1, 3, 5):
        resumed = fit(tmp_path / "parts", last_step)
    assert_trees_equal(jax.device_get(resumed), jax.device_get(straight))


def test_every_step_is_recorded_once_and_saved_before_it_is_evaluated(tmp_path):
    record, events = Record(), []

    def evaluate(step, state):
        assert int(state.step) == step
        events.append((step, record.num_synced))
        return {"miou": 0.5}

    fit(tmp_path / "run", 5, record=record, evaluate=evaluate)
    assert [line["step"] for line in record.lines] == [1, 2, 3, 4, 5]
    assert [step for step, _ in events] == [2, 4, 5]
    # Each state is saved before it is evaluated: an end in the middle of an evaluation loses nothing.
    assert [num_synced for _, num_synced in events] == [1, 2, 3]
    assert record.evaluated == [2, 4, 5]
    line = record.lines[2]
    assert math.isclose(line["learning_rate"], 0.05 * (1 - 2 / 40) ** 0.9, rel_tol=1e-5)
    assert {"loss", "semantic", "unity", "semantic_4", "unity_3", "images_per_second", "data_wait_share"} <= line.keys()
    assert 0 <= line["data_wait_share"] <= 1
    json.dumps(record.lines)


def test_a_finished_run_is_evaluated_once_more_and_not_trained(tmp_path):
    record = Record()
    first = fit(tmp_path / "run", 2)
    again = fit(tmp_path / "run", 2, record=record)
    assert_trees_equal(jax.device_get(again), jax.device_get(first))
    assert (record.lines, record.evaluated) == ([], [2])


@pytest.mark.parametrize("log_every", [1, 2, 5])
def test_recorded_speed_covers_the_steps_between_two_lines(tmp_path, monkeypatch, log_every):
    """Uses its own clock: the first step takes 50 s and the others 2 s, of which ½ s is for data; an evaluation takes 100 s."""
    now = [0.0]
    monkeypatch.setattr("pyrseg_jax.training.clock.time.perf_counter", lambda: now[0])
    state = jax.device_put(fresh_state(sgd()), mesh_lib.replicated(mesh_lib.make_mesh(data=1)))

    def pass_time(seconds, result):
        now[0] += seconds
        return result

    def step(state, batch):
        metrics = {"loss": jnp.float32(1), "gradient_norm": jnp.float32(1)}
        return state.replace(step=state.step + 1), pass_time(1.5 if state.step else 49.5, metrics)

    record = Record()
    checkpoints = Checkpoints(tmp_path / "run", keep_last=1)
    Trainer(
        step,
        lambda first_step: Batches(first_step, lambda seed: pass_time(0.5, {})),
        lambda batch: batch,
        lambda step, state: pass_time(100, {"miou": 0.5}),
        checkpoints,
        record,
        lambda step: 0.1,
        Schedule(12, batch_size=4, log_every=log_every, evaluate_every=6, save_every=12),
    ).fit(state)
    checkpoints.close()
    assert len(record.lines) == -(-12 // log_every)
    for line in record.lines:
        assert line["images_per_second"] == pytest.approx(4 / 2)
        assert line["data_wait_share"] == pytest.approx(0.25)


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    _, optimizer, step = step_on(1)

    def sick_step(state, batch):
        state, metrics = step(state, batch)
        return state, metrics | {"loss": jnp.where(state.step >= 4, jnp.nan, metrics["loss"])}

    with pytest.raises(UserError, match=r"step 4: the loss is nan; .*learning_rate"):
        fit(tmp_path / "run", 20, train_step=sick_step)
    checkpoints = Checkpoints(tmp_path / "run", is_reader=True)
    assert checkpoints.steps() == [2]
    abstract = abstract_on(jax.eval_shape(lambda: fresh_state(optimizer)), mesh_lib.replicated(mesh_lib.make_mesh(1)))
    restored = checkpoints.restore(abstract)
    assert int(restored.step) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(restored)))
    checkpoints.close()


def test_the_best_checkpoint_outlives_the_last_ones(tmp_path):
    scores = {2: 0.9, 4: 0.3, 6: 0.4, 8: 0.2}
    fit(tmp_path / "run", 8, evaluate=lambda step, state: {"miou": scores[step]})
    assert sorted(int(p.name) for p in (tmp_path / "run").iterdir() if p.name.isdigit()) == [2, 6, 8]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(tmp_path, caplog):
    fit(tmp_path / "run", 4)
    files = [p for p in (tmp_path / "run" / "4" / "variables").rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    final = fit(tmp_path / "run", 6)
    assert "checkpoint 4" in caplog.text
    assert "cannot be read" in caplog.text
    straight = fit(tmp_path / "straight", 6)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(straight), jax.device_get(final))


def test_a_checkpoint_of_another_network_is_refused_with_its_place(tmp_path):
    fit(tmp_path / "run", 2)
    other = build_segmenter(7, backbone="hrnet_tiny", semantic_width=16, key_width=8, unity_width=8)
    mesh, optimizer, _ = step_on(1)
    abstract = jax.eval_shape(lambda: initial_state(initial_variables(other, 0), optimizer))
    checkpoints = Checkpoints(tmp_path / "run")
    with pytest.raises(UserError, match="no checkpoint can be read"):
        checkpoints.restore(abstract_on(abstract, mesh_lib.replicated(mesh)))
    with pytest.raises(UserError, match="has no checkpoint of step 3: it has 2"):
        checkpoints.restore(abstract_on(abstract, mesh_lib.replicated(mesh)), step=3)
    checkpoints.close()
