"""The last layer that the published context modules share."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.layers import ConvNormAct, drop_channels


def merge(
    maps: tuple[Float[Array, "n h w _"], ...], width: int, *, kernel: int, dropout: float, dtype: DTypeLike, train: bool
) -> Float[Array, "n h w {width}"]:
    """Join maps into `width` channels, and leave out whole channels in training. Call it inside of a compact method.

    Args:
      maps: joined along their channels.
      width: channels of the result.
      kernel: side of the convolution's kernel.
      dropout: share of the channels that training leaves out, by the rng `dropout`.
      dtype: number format of the computation.
      train: whether the network is in training.
    """
    x = ConvNormAct(width, kernel, dtype=dtype, name="merge")(jnp.concatenate(maps, axis=-1), train)
    return drop_channels(x, dropout, train)
