"""The training system: one step against a golden one, against other meshes, and against an interrupted run."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.training import fresh_state, make_batch, sgd, tiny_model
from support.trees import assert_trees_equal

from pyrseg_jax.conventions import VOID
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on
from pyrseg_jax.training.loop import Schedule, run_loop
from pyrseg_jax.training.objective import PyramidObjective
from pyrseg_jax.training.optimizer import poly_schedule
from pyrseg_jax.training.step import JOINED, global_norm, initial_state, make_train_step


@functools.cache
def step_on(num_devices, optimizer_key="default"):
    """One compiled step per mesh for the whole file: compilation is what takes the time here."""
    mesh = mesh_lib.make_mesh(data=num_devices)
    optimizer = sgd() if optimizer_key == "default" else sgd(**dict(optimizer_key))
    return mesh, optimizer, make_train_step(tiny_model(), optimizer, PyramidObjective(), mesh)


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

    A change of these numbers means that training changed: initialisation, network, targets, loss, gradient or optimizer.
    If that was meant, put the new ones here and say in the commit why they moved.
    """
    state, losses = run_steps(1, [make_batch()] * 2)
    norm = float(optax.global_norm(state.params))
    np.testing.assert_allclose(losses, GOLDEN_LOSSES, rtol=2e-4)
    np.testing.assert_allclose(norm, GOLDEN_NORM, rtol=1e-5)
    assert int(state.step) == 2


GOLDEN_LOSSES, GOLDEN_NORM = (2.368299, 2.339876), 82.352547


def test_norm_is_of_all_arrays(rng):
    shapes = [(3,), (5,), (2, 3), (), (1, 1, 4, 2), (JOINED + 1,)]
    tree = {str(shape): jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes}
    every = np.concatenate([np.ravel(x) for x in tree.values()])
    np.testing.assert_allclose(global_norm(tree), np.linalg.norm(every), rtol=1e-6)
    for shape in shapes:  # joined with nothing, and nothing to join
        alone = tree[str(shape)]
        np.testing.assert_allclose(global_norm({"alone": alone}), np.linalg.norm(np.ravel(alone)), rtol=1e-6)


def test_many_steps_are_traced_once():
    mesh, optimizer, step = step_on(1)
    state = jax.device_put(fresh_state(optimizer), mesh_lib.replicated(mesh))
    for seed in range(3):
        state, _ = step(state, mesh_lib.images_to_devices(mesh, make_batch(seed)))
    assert step._cache_size() == 1


def test_two_images_are_learned_by_heart():
    batch = {name: array[[0, 1, 0, 1]] for name, array in make_batch(5).items()}
    _, losses = run_steps(1, [batch] * 35)
    assert losses[-1] < 0.35 * losses[0], losses


def test_a_crop_that_is_all_void_changes_nothing_but_decay():
    batch = make_batch()
    batch["label"][:] = VOID
    mesh, optimizer, step = step_on(1)
    before = jax.device_get(fresh_state(optimizer))
    state, metrics = step(jax.device_put(before, mesh_lib.replicated(mesh)), mesh_lib.images_to_devices(mesh, batch))
    assert metrics["loss"] == 0
    assert metrics["gradient_norm"] == 0
    decayed = jax.tree.map(lambda p: p * (1 - 0.05 * 1e-4), before.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), jax.device_get(state.params), decayed)


def test_optimizer_is_sgd_with_coupled_decay_and_a_faster_head():
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


# --- the loop


class Record:
    def __init__(self):
        self.lines = []
        self.num_synced = 0  # as often as a state was saved

    def advance(self, step, loss):
        pass

    def write_step(self, step, values):
        self.lines.append({"step": step} | values)

    def sync(self):
        self.num_synced += 1


def loop(directory, last_step, *, batch_of=make_batch, evaluate=lambda step, state: None, record=None, save_every=2):
    mesh, optimizer, step = step_on(1)
    checkpoints = Checkpoints(directory, keep_last=2)
    sharding = mesh_lib.replicated(mesh)
    state = checkpoints.restore(abstract_on(jax.eval_shape(lambda: fresh_state(optimizer)), sharding))
    if state is None:
        state = jax.device_put(fresh_state(optimizer), sharding)
    first = int(state.step)
    try:
        return run_loop(
            state,
            step,
            (batch_of(seed) for seed in range(first, 100)),
            to_devices=functools.partial(mesh_lib.images_to_devices, mesh),
            evaluate=evaluate,
            checkpoints=checkpoints,
            recorder=record or Record(),
            learning_rate=poly_schedule(0.05, 40),
            schedule=Schedule(last_step, batch_size=4, log_every=1, evaluate_every=2, save_every=save_every),
        )
    finally:
        checkpoints.close()


def test_a_resumed_run_equals_the_straight_run(tmp_path):
    straight = loop(tmp_path / "straight", 5)
    for last_step in (1, 3, 5):
        resumed = loop(tmp_path / "parts", last_step)
    assert_trees_equal(jax.device_get(resumed), jax.device_get(straight))


def test_every_step_is_recorded_once_and_saved_before_it_is_evaluated(tmp_path):
    record, events = Record(), []

    def evaluate(step, state):
        assert int(state.step) == step
        events.append((step, record.num_synced))
        return 0.5

    loop(tmp_path / "run", 5, record=record, evaluate=evaluate)
    assert [line["step"] for line in record.lines] == [1, 2, 3, 4, 5]
    assert [step for step, _ in events] == [2, 4, 5]
    # Also those that are not evaluated: an end in the middle of an evaluation loses nothing.
    assert [num_synced for _, num_synced in events] == [1, 2, 3]
    line = record.lines[2]
    assert math.isclose(line["learning_rate"], 0.05 * (1 - 2 / 40) ** 0.9, rel_tol=1e-5)
    assert {"loss", "semantic", "unity", "semantic_4", "unity_3", "images_per_second", "data_wait_share"} <= line.keys()
    assert 0 <= line["data_wait_share"] <= 1
    json.dumps(record.lines)


@pytest.mark.parametrize("log_every", [1, 2, 5])
def test_speed_is_that_of_the_steps_between_two_lines(tmp_path, monkeypatch, log_every):
    """With a clock of its own: the first step takes 50 s, the others 2 s, of these ½ s for data; an evaluation takes 100 s."""
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
    run_loop(
        state,
        step,
        (pass_time(0.5, {}) for _ in range(100)),
        to_devices=lambda batch: batch,
        evaluate=lambda step, state: pass_time(100, 0.5),
        checkpoints=checkpoints,
        recorder=record,
        learning_rate=lambda step: 0.1,
        schedule=Schedule(12, batch_size=4, log_every=log_every, evaluate_every=6, save_every=12),
    )
    checkpoints.close()
    assert len(record.lines) == -(-12 // log_every)
    for line in record.lines:
        assert line["images_per_second"] == pytest.approx(4 / 2)
        assert line["data_wait_share"] == pytest.approx(0.25)


def test_a_non_finite_loss_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    def poisoned(seed):
        return make_batch(seed)

    mesh, optimizer, step = step_on(1)
    healthy = step

    def sick_step(state, batch):
        state, metrics = healthy(state, batch)
        is_sick = int(state.step) >= 4
        return state, metrics | {"loss": jnp.where(is_sick, jnp.nan, metrics["loss"])}

    checkpoints = Checkpoints(tmp_path / "run")
    state = jax.device_put(fresh_state(optimizer), mesh_lib.replicated(mesh))
    with pytest.raises(UserError, match=r"step 4: the loss is nan; .*learning_rate"):
        run_loop(
            state,
            sick_step,
            (poisoned(seed) for seed in range(100)),
            to_devices=functools.partial(mesh_lib.images_to_devices, mesh),
            evaluate=lambda step, state: None,
            checkpoints=checkpoints,
            recorder=Record(),
            learning_rate=lambda step: 0.1,
            schedule=Schedule(20, batch_size=4, log_every=1, evaluate_every=100, save_every=2),
        )
    checkpoints.wait()
    assert checkpoints.steps() == [2]
    abstract = abstract_on(jax.eval_shape(lambda: fresh_state(optimizer)), mesh_lib.replicated(mesh))
    restored = checkpoints.restore(abstract)
    assert int(restored.step) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(restored)))
    checkpoints.close()


def test_the_best_checkpoint_outlives_the_last_ones(tmp_path):
    scores = {2: 0.9, 4: 0.3, 6: 0.4, 8: 0.2}
    loop(tmp_path / "run", 8, evaluate=lambda step, state: scores[step])
    assert sorted(int(p.name) for p in (tmp_path / "run").iterdir() if p.name.isdigit()) == [2, 6, 8]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(tmp_path, caplog):
    loop(tmp_path / "run", 4)
    files = [p for p in (tmp_path / "run" / "4" / "variables").rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    final = loop(tmp_path / "run", 6)
    assert "checkpoint 4" in caplog.text
    assert "cannot be read" in caplog.text
    straight = loop(tmp_path / "straight", 6)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(straight), jax.device_get(final))


def test_a_checkpoint_of_another_network_is_refused_with_its_place(tmp_path):
    loop(tmp_path / "run", 2)
    other = build_segmenter(7, backbone="hrnet_tiny", semantic_width=16, key_width=8, unity_width=8)
    mesh, optimizer, _ = step_on(1)
    abstract = jax.eval_shape(lambda: initial_state(initial_variables(other, 0), optimizer))
    checkpoints = Checkpoints(tmp_path / "run")
    with pytest.raises(UserError, match="no checkpoint can be read"):
        checkpoints.restore(abstract_on(abstract, mesh_lib.replicated(mesh)))
    with pytest.raises(UserError, match="has no checkpoint of step 3: it has 2"):
        checkpoints.restore(abstract_on(abstract, mesh_lib.replicated(mesh)), step=3)
    checkpoints.close()
