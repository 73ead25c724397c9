"""Devices: the mesh, what is sharded over it and how, and host arrays on their way to it. No other file knows these.

The mesh has two axes. A batch is split over `data`; for images too large for one device, each image's rows are split over
`spatial` in training, and XLA inserts the exchange of rows between neighbours. Parameters are replicated, or split over
`data` together with the optimizer's state. Losses and batch statistics are those of the global batch: XLA inserts the sums.

Processes: each reads its own part of a batch; `spatial` stays inside of a process, so that no image is read twice.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pyrseg_jax.errors import UserError

# Leaves below this stay whole on every device: gathering them would take longer than it saves.
MIN_SHARDED_SIZE = 1 << 12
MIN_ROWS = 2


def make_mesh(data: int = -1, spatial: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arrange devices for a batch that is split `data` ways, and images whose rows are split `spatial` ways.

    Args:
      data: -1 takes all devices.
      spatial: must divide the number of devices of each process.
      devices: to arrange; None: all of this run.

    Raises:
      UserError: if there are fewer devices, or they cannot be grouped so.
    """
    # In the order of the processes, so that a process holds whole images, and the batch in order.
    devices = sorted(jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id))
    per_process = len(devices) // len({device.process_index for device in devices})
    if per_process % spatial:
        raise UserError(
            f"config.parallel.spatial={spatial}: the rows of an image can be split over devices of one process, and each has "
            f"{per_process} here; take a divisor of that"
        )
    if data == -1:
        data = len(devices) // spatial
    if data * spatial > len(devices):
        product = f"config.parallel.data={data}" + (f" × config.parallel.spatial={spatial}" if spatial > 1 else "")
        raise UserError(f"{product}: there are {len(devices)} devices here; take at most these, or data=-1 for all")
    used = devices[: data * spatial]
    if len({d.process_index for d in used}) < len({d.process_index for d in devices}):
        raise UserError(
            f"config.parallel.data={data}: {len(devices) - len(used)} devices and whole processes would be left without work; "
            "take -1 for all, or start fewer processes"
        )
    # Automatic axes: with explicit ones the reshapes of pixels into cells raise.
    grid = np.array(used, dtype=object).reshape(data, spatial)
    return Mesh(grid, ("data", "spatial"), axis_types=(AxisType.Auto,) * 2)


def local_mesh(mesh: Mesh) -> Mesh:
    """Arrange this process's devices of a mesh for work that needs no other process: batches split over all of them."""
    return make_mesh(devices=local_devices(list(mesh.devices.flat), jax.process_index()))


def local_devices(devices: Sequence, process: int) -> list:
    """Return those devices of a process that can work without the other processes; of TPUs that is one.

    A slice of v5e or v6e takes programs for all of its chips or for a single one ("device assignment should include all slice
    devices"). What is done so, evaluation, is divided among the processes and takes a small part of a run.
    """
    own = [device for device in devices if device.process_index == process]
    return own[:1] if own[0].platform == "tpu" and len(own) < len(devices) else own


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of what every device holds whole: parameters, optimizer state, scalars."""
    return NamedSharding(mesh, P())


def replicated_like(array: jax.Array) -> jax.sharding.Sharding:
    """Return the sharding of what every device of an array holds whole, for results about it."""
    sharding = array.sharding
    return replicated(sharding.mesh) if isinstance(sharding, NamedSharding) else sharding


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays whose first axis counts images: images, label maps, sizes."""
    return NamedSharding(mesh, P("data"))


def image_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of training images (N, H, W, 3) and label maps (N, H, W): images over `data`, rows over `spatial`."""
    return NamedSharding(mesh, P("data", "spatial"))


def state_sharding(mesh: Mesh, state: Any, is_sharded: bool) -> Any:
    """Return the sharding of each leaf of a state: replicated, or `is_sharded` over `data` along its longest axis that divides.

    Args:
      mesh: of the training.
      state: arrays or their shapes, in any tree.
      is_sharded: leaves that are small or have no such axis stay whole all the same.
    """
    groups = mesh.shape["data"]

    def of_leaf(leaf) -> NamedSharding:
        axes = [axis for axis, length in enumerate(leaf.shape) if length % groups == 0]
        if not is_sharded or groups == 1 or not axes or leaf.size < MIN_SHARDED_SIZE:
            return replicated(mesh)
        axis = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, P(*[None] * axis, "data"))

    return jax.tree.map(of_leaf, state)


def check_batch(mesh: Mesh, batch_size: int, key: str, accumulate: int = 1) -> None:
    """Raise UserError, naming the configuration key, if a batch cannot be split evenly over the mesh and into micro-batches."""
    groups = mesh.shape["data"]
    whole = groups * accumulate
    if batch_size % whole:
        below = batch_size // whole * whole
        choices = f"{below} or {below + whole}" if below else f"{whole}"
        parts = f"{groups} devices" if mesh.shape["spatial"] == 1 else f"{groups} groups of devices"
        parts += f" in {accumulate} micro-batches (config.training.accumulate)" if accumulate > 1 else ""
        raise UserError(f"{key}={batch_size} cannot be split evenly over {parts}: take {choices}")


def check_rows(mesh: Mesh, crop_px: int, stride: int) -> None:
    """Raise UserError if the rows of a training image cannot be split over `spatial`; `stride` is the coarsest level's.

    Each device must have two rows of the coarsest level: with one, XLA's partitioning of the strided convolutions that lead
    there gives wrong gradients on a mesh of 2 × 2 (jax 0.10.2), without a word.
    """
    spatial = mesh.shape["spatial"]
    least = MIN_ROWS * stride * spatial
    if spatial > 1 and (crop_px < least or crop_px % (stride * spatial)):
        raise UserError(
            f"config.data.crop_px={crop_px} cannot be split over config.parallel.spatial={spatial} devices: it must be a "
            f"multiple of {stride * spatial}, and at least {least}, so that each has {MIN_ROWS} rows of the coarsest level"
        )


def to_devices(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Put this process's share of a batch onto its devices, as global arrays split over `data`."""
    return _place(batch_sharding(mesh), batch)


def images_to_devices(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Put this process's share of a training batch onto its devices, as global arrays of `image_sharding`."""
    return _place(image_sharding(mesh), batch)


def _place(sharding: NamedSharding, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def constrain(tree: Any, sharding: Any) -> Any:
    """Require a sharding, or a tree of them, of arrays under `jit`."""
    return jax.lax.with_sharding_constraint(tree, sharding)


def whole_on(mesh: Mesh, tree: Any) -> Any:
    """Gather arrays of any sharding whole onto each device of `mesh`, whose devices are this process's.

    All processes must call it.
    """
    if jax.process_count() > 1:
        spread = {leaf.sharding.mesh for leaf in jax.tree.leaves(tree)}
        assert len(spread) == 1, "arrays of one state are on one mesh"
        tree = _gather(spread.pop())(tree)
        tree = jax.tree.map(lambda x: x.addressable_data(0), tree)
    return jax.device_put(tree, replicated(mesh))


@functools.lru_cache
def _gather(mesh: Mesh) -> Callable:
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def sum_over_shards(function: Callable, mesh: Mesh, *batch: Any) -> Any:
    """Call a function that sums over a batch on each device's share of it, and add up the results; to be used under `jit`.

    For programs that XLA would not split by itself, like loops over the images.
    """

    def add_up(*share):
        return jax.tree.map(lambda x: jax.lax.psum(x, "data"), function(*share))

    split = (P("data"),) * len(batch)
    return jax.shard_map(add_up, mesh=mesh, in_specs=split, out_specs=P(), check_vma=False)(*batch)


def describe_devices() -> str:
    """Name the devices for a log line, as in `2 × cpu`."""
    kinds = [device.device_kind for device in jax.devices()]
    described = ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds))
    return described + (f" in {jax.process_count()} processes" if jax.process_count() > 1 else "")
