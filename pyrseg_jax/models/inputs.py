"""From photographs to what the networks expect."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from pyrseg_jax.conventions import IMAGE_MEAN, IMAGE_STD


def normalize(images: UInt8[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    """Scale RGB 0 … 255 to mean 0 and deviation 1 over ImageNet, in float32; on the device, so that bytes travel."""
    return (images.astype(jnp.float32) - jnp.asarray(IMAGE_MEAN)) / jnp.asarray(IMAGE_STD)
