"""From images to the numbers that the networks expect."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from pyrseg_jax.conventions import image_mean, image_std


def normalize(images: Real[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Scale values of 0 … 255 to about mean 0 and standard deviation 1, in float32; RGB by the statistics of ImageNet.

    Call it on the device, so that images travel there as bytes.
    """
    channels = images.shape[-1]
    return (images.astype(jnp.float32) - jnp.asarray(image_mean(channels))) / jnp.asarray(image_std(channels))
