"""The last layers: from each level's features to class logits, and from the backbone's final map to unity logits."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import AuxiliaryHead
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, drop_channels


class SemanticHead(nn.Module):
    """A classifier per level: maps (N, h, w, D_s) → maps of class logits (N, h, w, C), in float32.

    Attributes:
      num_classes: C.
      num_levels: L. If the head gets fewer maps than that, they are those of the finest levels.
      is_projected: whether a non-linear projection stands before each classifier.

    Source: Sec. 3.3, "a 1×1 convolutional non-linear projection layer to get the segmentation prediction".
    """

    num_classes: int
    num_levels: int
    is_projected: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, levels: tuple[Float[Array, "n _ _ _"], ...], train: bool) -> tuple[Float[Array, "n _ _ c"], ...]:
        logits = []
        for level, x in enumerate(levels, self.num_levels - len(levels) + 1):
            if self.is_projected:
                x = ConvNormAct(x.shape[-1], dtype=self.dtype, name=f"project_{level}")(x, train)
            x = biased_conv(self.num_classes, dtype=self.dtype, name=f"classify_{level}")(x)
            logits.append(x.astype(jnp.float32))
        return tuple(logits)


class AuxiliaryClassifier(nn.Module):
    """The classifier beside a context module, for training: map (N, h, w, D) → class logits (N, h, w, C), in float32.

    Attributes:
      num_classes: C.
      shape: its sizes, from the backbone's spec.

    Source: Zhao et al. 2017, "Supervised ResNet-Based FCN".
    """

    num_classes: int
    shape: AuxiliaryHead = AuxiliaryHead()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w d"], train: bool) -> Float[Array, "n h w c"]:
        width = self.shape.width or x.shape[-1]
        x = ConvNormAct(width, self.shape.kernel, dtype=self.dtype, name="project_1")(x, train)
        x = drop_channels(x, self.shape.dropout, train)
        return biased_conv(self.num_classes, dtype=self.dtype, name="classify_1")(x).astype(jnp.float32)


class UnityHead(nn.Module):
    """Decide whether each cell is a unit-cell: map (N, h, w, D) → L-1 maps of logits (N, h/2^(L-l), w/2^(L-l)), in float32.

    A shared 1×1 convolution first reduces the map to D_u channels. Then each level but the finest has one convolution, whose kernel
    and stride are 2^(L-l), so that a logit sees exactly the cell that it answers for.

    Attributes:
      num_levels: L.
      width: D_u.

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
            x = biased_conv(1, cell, dtype=self.dtype, name=f"unity_{level}")(reduced)
            logits.append(x[..., 0].astype(jnp.float32))
        return tuple(logits)
