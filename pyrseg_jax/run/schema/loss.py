"""The keys `loss.*`."""

from pyrseg_jax.run.declare import group


@group
class Loss:
    """What is learned from each cell or pixel, and with which weight."""
