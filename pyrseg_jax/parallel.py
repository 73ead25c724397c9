"""Devices: the mesh, what is sharded over it and how, and host arrays on their way to it. No other file knows these.

The mesh has two axes: `data`, over which a batch is split, and `spatial`, over which each image is split along its
height. Parameters are replicated. Losses and batch statistics are those of the global batch: XLA inserts the sums.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pyrseg_jax.errors import UserError


def make_mesh(data: int = -1, spatial: int = 1) -> Mesh:
    """Arrange all devices as data × spatial; `data=-1` takes as many groups as there are devices for.

    Raises:
      UserError: if the product is not the number of devices.
    """
    num_devices = jax.device_count()
    if data == -1:
        data = max(num_devices // spatial, 1)
    if data * spatial > num_devices or num_devices % (data * spatial):
        raise UserError(
            f"config.parallel.data={data} × config.parallel.spatial={spatial} does not fit the {num_devices} devices here: "
            "choose two numbers whose product divides that, or data=-1"
        )
    # Automatic axes: with explicit ones the reshapes of pixels into cells raise.
    devices = jax.devices()[: data * spatial]
    return jax.make_mesh((data, spatial), ("data", "spatial"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of what every device holds whole: parameters, optimizer state, scalars."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays (N, H, …): images, label maps."""
    return NamedSharding(mesh, P("data", "spatial"))


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays whose first axis alone is split, over `data`."""
    return NamedSharding(mesh, P("data"))


def check_batch(mesh: Mesh, batch_size: int, key: str) -> None:
    """Raise UserError, naming the configuration key, if a batch cannot be split evenly over the mesh."""
    groups = mesh.shape["data"]
    if batch_size % groups:
        below = batch_size // groups * groups
        choices = f"{below} or {below + groups}" if below else f"{groups}"
        raise UserError(f"{key}={batch_size} cannot be split over {groups} groups of devices: take {choices}")


def to_devices(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Put each process's share of a batch onto its devices, as global arrays."""
    return _to_global(batch_sharding(mesh), batch)


def rows_to_devices(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Put arrays of any rank, each process's share of them, onto the devices, split along their first axis."""
    return _to_global(rows_sharding(mesh), batch)


def _to_global(sharding: NamedSharding, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def describe_devices() -> str:
    """Name the devices for a log line, as in `2 × cpu`."""
    kinds = [device.device_kind for device in jax.devices()]
    return ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds))
