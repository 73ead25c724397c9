"""The keys `optimizer.*`."""

from pyrseg_jax.run.declare import group


@group
class Optimizer:
    """How gradients change the parameters."""
