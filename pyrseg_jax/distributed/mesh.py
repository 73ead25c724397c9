"""The device mesh, the sharding of every array, and the transfer of host arrays to devices. No other file names the mesh axes.

The mesh has two axes. The batch is sharded over `data`. For images too large for one device, training also shards each
image's rows over `spatial`, and XLA inserts the exchange of rows between neighbors (halo exchange). Parameters and optimizer
state are replicated, or both are sharded over `data`. Losses and batch statistics belong to the global batch: XLA inserts
the sums over devices.

Each process reads its own share of the batch. `spatial` never crosses processes, so no image is read twice.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pyrseg_jax.errors import UserError

# Arrays with fewer elements are replicated even in a sharded state: gathering them would cost more than it saves.
MIN_SHARDED_SIZE = 1 << 12
# Rows of the coarsest level that each device along `spatial` must hold; see `check_rows`.
MIN_ROWS = 2


def make_mesh(data: int = -1, spatial: int = 1, devices: Sequence | None = None) -> Mesh:
    """Arrange devices in a mesh of `data` × `spatial`.

    Args:
      data: number of shards of the batch; -1 uses as many as the devices allow.
      spatial: number of shards of each image's rows; must divide the number of devices of each process.
      devices: devices to arrange; by default all devices of this run.

    Raises:
      UserError: naming the argument, if there are too few devices or they cannot be arranged this way.
    """
    # Sort by process, so that each process holds whole images and consecutive parts of the batch.
    devices = sorted(jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id))
    per_process = len(devices) // len({device.process_index for device in devices})
    if per_process % spatial:
        raise UserError(
            f"spatial={spatial}: the rows of an image can be split only over the devices of one process, and each process has "
            f"{per_process}; use a divisor of that number"
        )
    if data == -1:
        data = len(devices) // spatial
    if data * spatial > len(devices):
        product = f"data={data}" + (f" × spatial={spatial}" if spatial > 1 else "")
        raise UserError(f"{product}: there are only {len(devices)} devices; use at most that many, or data=-1 for all")
    used = devices[: data * spatial]
    if len({d.process_index for d in used}) < len({d.process_index for d in devices}):
        raise UserError(
            f"data={data}: {len(devices) - len(used)} devices would be unused, among them all devices of a process; use -1 for all "
            "devices, or start fewer processes"
        )
    # Auto axes: with explicit axes, the reshapes that group pixels into cells raise an error.
    grid = np.array(used, dtype=object).reshape(data, spatial)
    return Mesh(grid, ("data", "spatial"), axis_types=(AxisType.Auto,) * 2)


def local_mesh(mesh: Mesh) -> Mesh:
    """Return a mesh of this process's devices, for work without other processes; batches are sharded over all its devices."""
    return make_mesh(devices=local_devices(list(mesh.devices.flat), jax.process_index()))


def local_devices(devices: Sequence, process: int) -> list:
    """Return the devices that a process can use without the other processes: all of its devices, but only one on a TPU slice.

    A v5e or v6e slice accepts programs for all of its chips or for a single chip ("device assignment should include all
    slice devices"). Only evaluation uses these devices. It is divided among the processes, and takes a small part of a run.

    Args:
      devices: the devices of all processes.
      process: index of the process.
    """
    own = [device for device in devices if device.process_index == process]
    return own[:1] if own[0].platform == "tpu" and len(own) < len(devices) else own


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays that every device holds in full, such as parameters and scalars."""
    return NamedSharding(mesh, P())


def replicated_like(array: jax.Array) -> jax.sharding.Sharding:
    """Return a replicated sharding on the devices of an array, for results computed from it."""
    sharding = array.sharding
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        return replicated(sharding.mesh)
    return sharding


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays whose first axis is the batch, such as images, label maps and sizes."""
    return NamedSharding(mesh, P("data"))


def image_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of training images (N, H, W, 3) and label maps (N, H, W): N over `data`, H over `spatial`."""
    return NamedSharding(mesh, P("data", "spatial"))


def state_sharding(mesh: Mesh, state: Any, is_sharded: bool) -> Any:
    """Return the sharding of each leaf of a state.

    Args:
      mesh: the training mesh.
      state: any tree of arrays or of their shapes.
      is_sharded: shard each leaf over `data`, along its longest axis that divides evenly. Small leaves, and those without such
        an axis, are still replicated. If false, every leaf is replicated.
    """
    groups = mesh.shape["data"]

    def of_leaf(leaf) -> NamedSharding:
        axes = [axis for axis, length in enumerate(leaf.shape) if length % groups == 0]
        if not is_sharded or groups == 1 or not axes or leaf.size < MIN_SHARDED_SIZE:
            return replicated(mesh)
        axis = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, P(*[None] * axis, "data"))

    return jax.tree.map(of_leaf, state)


def check_batch(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
    """Raise UserError if a batch cannot be split evenly over the mesh and into `accumulate` micro-batches."""
    groups = mesh.shape["data"]
    whole = groups * accumulate
    if batch_size % whole:
        below = batch_size // whole * whole
        choices = f"{below} or {below + whole}" if below else f"{whole}"
        parts = f"{groups} devices" if mesh.shape["spatial"] == 1 else f"{groups} groups of devices"
        parts += f" in {accumulate} micro-batches (accumulate)" if accumulate > 1 else ""
        raise UserError(f"batch_size={batch_size} cannot be split evenly over {parts}: use {choices}")


def check_rows(mesh: Mesh, crop_px: int, stride: int) -> None:
    """Raise UserError if the rows of a training image cannot be split over `spatial`.

    Each device must hold at least two rows of the coarsest level. With one row, on a 2 × 2 mesh, XLA silently computes wrong
    gradients for the strided convolutions before that level (jax 0.10.2).

    Args:
      mesh: the training mesh.
      crop_px: height of a training image, in pixels.
      stride: stride of the coarsest level, in pixels.
    """
    spatial = mesh.shape["spatial"]
    least = MIN_ROWS * stride * spatial
    if spatial > 1 and (crop_px < least or crop_px % (stride * spatial)):
        raise UserError(
            f"crop_px={crop_px} cannot be split over spatial={spatial} devices: it must be a multiple of {stride * spatial} and "
            f"at least {least}, so that each device has {MIN_ROWS} rows of the coarsest level"
        )


def to_devices(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Transfer this process's share of a batch to its devices, as global arrays sharded over `data`."""
    return _place(batch_sharding(mesh), batch)


def images_to_devices(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Transfer this process's share of a training batch to its devices, as global arrays with `image_sharding`."""
    return _place(image_sharding(mesh), batch)


def _place(sharding: NamedSharding, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def constrain(tree: Any, sharding: Any) -> Any:
    """Give arrays under `jit` a sharding: one for all, or a tree with one for each array."""
    return jax.lax.with_sharding_constraint(tree, sharding)


def whole_on(mesh: Mesh, tree: Any) -> Any:
    """Copy arrays of any sharding in full to each device of `mesh`; all processes must call this together.

    Args:
      mesh: a mesh of this process's devices only, as returned by `local_mesh`.
      tree: any tree of arrays.
    """
    if jax.process_count() > 1:
        spread = {leaf.sharding.mesh for leaf in jax.tree.leaves(tree)}
        assert len(spread) == 1, "all arrays of a state must be on one mesh"
        tree = _gather(spread.pop())(tree)
        tree = jax.tree.map(lambda x: x.addressable_data(0), tree)
    return jax.device_put(tree, replicated(mesh))


@functools.lru_cache
def _gather(mesh: Mesh) -> Callable:
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def sum_over_shards(function: Callable, mesh: Mesh, *batch: Any, has_rows: bool = False) -> Any:
    """Apply a function that sums over a batch to each device's shard, and add up the results; call this under `jit`.

    Use it for programs that XLA does not partition by itself, such as loops over images.

    Args:
      function: arrays sharded over the batch → tree of sums.
      mesh: the mesh that the batch is sharded over.
      batch: the function's arguments.
      has_rows: whether the function returns (sums, rows) instead. Rows are arrays whose first axis is the batch; they are not added
        up, and stay on the devices of their shards.
    """

    def add_up(*share):
        found = function(*share)
        sums = jax.tree.map(lambda x: jax.lax.psum(x, "data"), found[0] if has_rows else found)
        return (sums, found[1]) if has_rows else sums

    split = (P("data"),) * len(batch)
    results = (P(), P("data")) if has_rows else P()
    return jax.shard_map(add_up, mesh=mesh, in_specs=split, out_specs=results, check_vma=False)(*batch)


def describe_devices() -> str:
    """Describe the devices of this run for a log line, for example `2 × cpu`."""
    kinds = [device.device_kind for device in jax.devices()]
    described = ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds))
    return described + (f" in {jax.process_count()} processes" if jax.process_count() > 1 else "")
