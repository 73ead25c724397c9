"""Dilated convolutions at several rates, added up: the head of DeepLab's second version."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.layers import conv
from pyrseg_jax.models.normalization import BatchNorm

RATES = (6, 12, 18, 24)


class AtrousSum(nn.Module):
    """Sum of 3×3 convolutions with a dilation each, then normalization and ReLU: (N, h, w, D) → (N, h, w, width).

    Attributes:
      width: channels of the output.
      rates: dilations in positions.

    Source: Chen et al. 2018 (DeepLab, arXiv 1606.00915), Sec. 3.2, ASPP with the rates 6, 12, 18 and 24.
    Chosen: a batch normalization and a ReLU follow, because a module and not a classifier reads the map.
    Chosen: the rates count positions, so on a map of stride 4 they reach half as far as on the published stride of 8.
    """

    width: int
    rates: Sequence[int] = RATES
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w d"], train: bool) -> Float[Array, "n h w {self.width}"]:
        branches = [conv(self.width, 3, dilation=rate, dtype=self.dtype, name=f"rate_{rate}")(x) for rate in self.rates]
        return BatchNorm(is_active=True, dtype=self.dtype, name="bn")(sum(branches[1:], branches[0]), train)
