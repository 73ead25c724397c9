"""The keys `augment.*`."""

from pyrseg_jax.run.declare import group


@group
class Augment:
    """Random changes of the training images beyond scale, crop, mirroring and color, which `data` has."""
