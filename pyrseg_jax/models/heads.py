"""The last layers: from each level's features to class logits, and from the backbone's to unity logits."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.layers import ConvNormAct, output_conv


class SemanticHead(nn.Module):
    """A non-linear projection and a classifier per level: L maps (N, h, w, D_s) → L maps (N, h, w, C), in float32.

    Source: Sec. 3.3, "a 1×1 convolutional non-linear projection layer to get the segmentation prediction".
    """

    num_classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, levels: tuple[Float[Array, "n _ _ _"], ...], train: bool) -> tuple[Float[Array, "n _ _ c"], ...]:
        logits = []
        for level, x in enumerate(levels, 1):
            x = ConvNormAct(x.shape[-1], dtype=self.dtype, name=f"project_{level}")(x, train)
            x = output_conv(self.num_classes, dtype=self.dtype, name=f"classify_{level}")(x)
            logits.append(x.astype(jnp.float32))
        return tuple(logits)


class UnityHead(nn.Module):
    """Is this cell a unit-cell? (N, h, w, D) → L-1 maps of logits (N, h/2^(L-l), w/2^(L-l)), in float32.

    A shared 1×1 reduction to D_u channels, then for each level but the finest one convolution whose kernel and stride
    are 2^(L-l): it sees just the cells that it answers for.

    Source: Sec. 3.2.
    """

    num_levels: int
    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "n h w d"], train: bool) -> tuple[Float[Array, "n _ _"], ...]:
        if self.num_levels == 1:
            return ()
        reduced = ConvNormAct(self.width, dtype=self.dtype, name="reduce")(features, train)
        logits = []
        for level in range(1, self.num_levels):
            cell = 1 << (self.num_levels - level)
            x = output_conv(1, cell, dtype=self.dtype, name=f"unity_{level}")(reduced)
            logits.append(x[..., 0].astype(jnp.float32))
        return tuple(logits)
