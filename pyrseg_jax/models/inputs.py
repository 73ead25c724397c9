"""From photographs to the numbers that the networks expect."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from pyrseg_jax.conventions import IMAGE_MEAN, IMAGE_STD


def normalize(images: UInt8[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    """Scale RGB 0 … 255 to mean 0 and standard deviation 1 over ImageNet, in float32.

    Call it on the device, so that images travel there as bytes.
    """
    return (images.astype(jnp.float32) - jnp.asarray(IMAGE_MEAN)) / jnp.asarray(IMAGE_STD)
