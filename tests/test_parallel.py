"""The training step computes the same numbers on different meshes, and a mesh refuses what it cannot split."""

import functools
import unittest.mock
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import fresh_state, make_batch, sgd, tiny_model

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models import segmenter
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.training.objective import PyramidObjective
from pyrseg_jax.training.step import initial_state, make_train_step

# `tp` would let rounding decide on which side of the threshold an untrained unity probability lies.
OBJECTIVE = PyramidObjective(procedure="gt")
LEARNING_RATE = 0.002
HEIGHT_PX = 128  # two rows of cells of the coarsest level for each of two devices
WIDTH_PX = 32  # one column of them: XLA computes convolutions in float64 slowly


@functools.cache
def three_steps(data, spatial=1, is_sharded=False):
    """Return the losses of three steps, the gradient norms, and the state after them, all computed in float64.

    A mesh changes only the order of summation. In float32, ReLUs and batches of four magnify that from step to step: on four
    devices with jax 0.12.0, the losses are off by 1e-7 after the first step and 1e-5 after the fifth, the running
    variances by 4e-7 and 3e-4; with jax 0.10.2 by 3e-8 and 3e-6, 5e-7 and 8e-5. In float64, every mesh agrees with one device to
    4e-7 in the loss, which is still summed in float32, 9e-8 in the running statistics, and 2e-10 in the parameters. So the
    tolerance here is strict enough to find a wrong mean or a lost halo.
    """
    with jax.enable_x64(True), unittest.mock.patch.dict(segmenter.DTYPES, float64=jnp.float64):
        mesh, optimizer, model = mesh_lib.make_mesh(data, spatial), sgd(LEARNING_RATE), tiny_model("float64")
        variables = jax.tree.map(np.float64, initial_variables(model, 0))
        state = initial_state(variables, optimizer)
        sharding = mesh_lib.state_sharding(mesh, state, is_sharded)
        step = make_train_step(model, optimizer, OBJECTIVE, mesh, state_sharding=sharding)
        state, recorded = jax.device_put(state, sharding), []
        for seed in range(3):
            state, metrics = step(
                state, mesh_lib.images_to_devices(mesh, make_batch(seed, side=HEIGHT_PX, width=WIDTH_PX))
            )
            recorded.append((metrics["loss"], metrics["gradient_norm"]))
        return *np.array(recorded).T, state


@pytest.mark.parametrize(
    ("platform", "processes", "expected"), [("tpu", 2, 1), ("tpu", 1, 4), ("gpu", 2, 2), ("cpu", 2, 2)]
)
def test_a_slice_of_tpus_is_used_whole_or_one_chip_at_a_time(platform, processes, expected):
    devices = [SimpleNamespace(platform=platform, process_index=i * processes // 4) for i in range(4)]
    own = mesh_lib.local_devices(devices, processes - 1)
    assert len(own) == expected
    assert {device.process_index for device in own} == {processes - 1}


@pytest.mark.parametrize("layout", [(4, 1), (2, 2), (4, 1, True)], ids=["data", "data_and_rows", "state"])
def test_every_mesh_computes_what_one_device_does(layout):
    *found, state = three_steps(*layout)
    *expected, state_of_one = three_steps(1)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, found, expected)
    for part in ("params", "batch_stats"):
        jax.tree.map(close, jax.device_get(getattr(state, part)), jax.device_get(getattr(state_of_one, part)))


def test_a_sharded_state_takes_a_part_of_the_memory_on_each_device():
    """Checks parameters and momentum after the steps: a step must return the state sharded as it received it."""
    *_, state = three_steps(4, 1, True)

    def share(tree):
        leaves = jax.tree.leaves(tree)
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves) / sum(leaf.nbytes for leaf in leaves)

    assert share(state.params) < 0.4
    assert share(state.opt_state) < 0.4


def test_the_rows_of_images_lie_on_different_devices():
    batch = mesh_lib.images_to_devices(mesh_lib.make_mesh(2, 2), make_batch(side=HEIGHT_PX, width=WIDTH_PX))
    assert {shard.data.shape for shard in batch["image"].addressable_shards} == {(2, HEIGHT_PX // 2, WIDTH_PX, 3)}
    assert {shard.data.shape for shard in batch["label"].addressable_shards} == {(2, HEIGHT_PX // 2, WIDTH_PX)}


@pytest.mark.parametrize("data", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_accumulation_is_the_mean_of_the_gradients_of_its_parts(data):
    """Batch statistics belong to each part, one after another; the twin is a plain loop over the parts."""
    mesh, batch = mesh_lib.make_mesh(data), make_batch(n=4)
    # With a learning rate of 1, and no momentum or decay, the change of the parameters is the gradient.
    plain = sgd(1.0, steps=10**9, momentum=0.0, weight_decay=0.0)
    before = jax.device_get(fresh_state(plain))
    accumulated = make_train_step(tiny_model(), plain, OBJECTIVE, mesh, accumulate=2)
    place = functools.partial(jax.device_put, device=mesh_lib.replicated(mesh))
    after, metrics = accumulated(place(before), mesh_lib.images_to_devices(mesh, batch))

    single = mesh_lib.make_mesh(1)
    step = make_train_step(tiny_model(), plain, OBJECTIVE, single)
    gradients, losses, state = [], [], before
    for part in range(2):
        micro = {name: array[part::2] for name, array in batch.items()}
        on_device = jax.device_put(state.replace(params=before.params), mesh_lib.replicated(single))
        state, found = step(on_device, mesh_lib.images_to_devices(single, micro))
        gradients.append(jax.tree.map(lambda old, new: np.asarray(old) - np.asarray(new), before.params, state.params))
        losses.append(float(found["loss"]))
        state = jax.device_get(state)

    expected = jax.tree.map(lambda *parts: np.mean(parts, 0), *gradients)
    found = jax.tree.map(lambda old, new: np.asarray(old) - np.asarray(new), before.params, after.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-5), found, expected)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), after.batch_stats, state.batch_stats
    )
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)
    assert int(after.step) == 1


def test_arrays_of_any_sharding_are_gathered_whole():
    mesh = mesh_lib.make_mesh(2, 2)
    tree = {"rows": jnp.arange(32.0).reshape(8, 4), "scalar": jnp.float32(3)}
    split = jax.device_put(tree, {"rows": mesh_lib.image_sharding(mesh), "scalar": mesh_lib.replicated(mesh)})
    whole = mesh_lib.whole_on(mesh_lib.local_mesh(mesh), split)
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(whole))
    jax.tree.map(np.testing.assert_array_equal, whole, tree)


@pytest.mark.parametrize(
    ("data", "spatial", "message"),
    [
        (8, 1, "^data=8: there are only 4 devices; use at most that many, or data=-1 for all"),
        (4, 2, "^data=4 × spatial=2: there are only 4 devices"),
        (
            -1,
            3,
            "^spatial=3: the rows of an image can be split only over the devices of one process, and each process has 4",
        ),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(data, spatial, message):
    with pytest.raises(UserError, match=message):
        mesh_lib.make_mesh(data, spatial)


@pytest.mark.parametrize(
    ("size", "accumulate", "message"),
    [
        (6, 1, "^batch_size=6 cannot be split evenly over 4 devices: use 4 or 8"),
        (12, 2, r"^batch_size=12 cannot be split evenly over 4 devices in 2 micro-batches \(accumulate\): use 8"),
    ],
)
def test_a_batch_that_does_not_split_is_refused(size, accumulate, message):
    with pytest.raises(UserError, match=message):
        mesh_lib.check_batch(mesh_lib.make_mesh(4), size, accumulate)


@pytest.mark.parametrize(("spatial", "crop_px"), [(2, 64), (2, 160), (4, 128)])
def test_rows_that_do_not_split_are_refused(spatial, crop_px):
    with pytest.raises(UserError, match=f"^crop_px={crop_px} cannot be split over spatial={spatial} devices"):
        mesh_lib.check_rows(mesh_lib.make_mesh(1, spatial), crop_px, 32)
    mesh_lib.check_rows(mesh_lib.make_mesh(1, spatial), 64 * spatial, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parallel": {"data": 8}}, "^config.parallel.data=8: there are only 4 devices"),
        ({"training": {"batch_size": 6}}, "^config.training.batch_size=6 cannot be split evenly over 4 devices"),
        (
            {"parallel": {"spatial": 2}, "data": {"crop_px": 64}},
            "^config.data.crop_px=64 cannot be split over config.parallel.spatial=2",
        ),
    ],
)
def test_a_layout_that_does_not_fit_names_the_key(changes, message):
    config = config_lib.defaults()
    for group, values in changes.items():
        config[group].update(values)
    config = config_lib.resolve(config)
    with pytest.raises(UserError, match=message):
        experiment.check_layout(config, experiment.make_mesh(config.parallel))
