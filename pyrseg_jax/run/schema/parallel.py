"""The keys `parallel.*`."""

from pyrseg_jax.run.declare import group, key


@group
class Parallel:
    """How the work is divided among devices (docs/guide/scaling.md)."""

    data: int = key(
        -1,
        "Number of devices, or groups of devices, that share the batch. -1 uses all devices.",
        unit="devices",
        at_least=-1,
        resumable=True,
    )
    spatial: int = key(
        1, "Number of devices that share the rows of each training image.", unit="devices", at_least=1, resumable=True
    )
    shard_state: bool = key(
        False,
        "Shard the parameters and the optimizer state over the devices, instead of a full copy on each.",
        resumable=True,
    )
