"""Devices: the mesh, what is sharded over it and how, and host arrays on their way to it. No other file knows these.

The mesh has one axis, `data`, over which a batch is split. Parameters are replicated. Losses and batch statistics are those of
the global batch: XLA inserts the sums.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pyrseg_jax.errors import UserError


def make_mesh(data: int = -1) -> Mesh:
    """Arrange devices for a batch that is split `data` ways; -1 takes all devices.

    Raises:
      UserError: if there are fewer devices.
    """
    num_devices = jax.device_count()
    if data == -1:
        data = num_devices
    if data > num_devices:
        raise UserError(
            f"config.parallel.data={data}: there are {num_devices} devices here; take at most these, or -1 for all"
        )
    # Automatic axes: with explicit ones the reshapes of pixels into cells raise.
    return jax.make_mesh((data,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:data])


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of what every device holds whole: parameters, optimizer state, scalars."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays whose first axis counts images: images, label maps, sizes."""
    return NamedSharding(mesh, P("data"))


def check_batch(mesh: Mesh, batch_size: int, key: str) -> None:
    """Raise UserError, naming the configuration key, if a batch cannot be split evenly over the mesh."""
    groups = mesh.shape["data"]
    if batch_size % groups:
        below = batch_size // groups * groups
        choices = f"{below} or {below + groups}" if below else f"{groups}"
        raise UserError(f"{key}={batch_size} cannot be split evenly over {groups} devices: take {choices}")


def to_devices(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Put each process's share of a batch onto its devices, as global arrays."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


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
    return ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds))
