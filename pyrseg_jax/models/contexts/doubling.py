"""Layers that double the size of a map; with a mask, they compute only the children of active cells.

A submanifold convolution reads and writes active cells only; all other cells are 0. That equals a dense convolution of a map that
is 0 at inactive cells, with its result set to 0 there, as `layers.ConvNormAct` and `layers.BasicBlock` with a mask do it.

Source: Graham et al. 2018, "3D Semantic Segmentation with Submanifold Sparse Convolutional Networks".
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from pyrseg_jax.models.layers import Mask, conv, hidden_init
from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.models.xla_cpu import add_relu
from pyrseg_jax.pyramid.levels import to_children


class UpBlock(nn.Module):
    """A residual block that doubles the size of a map: (N, h, w, C) → (N, 2h, 2w, features).

    A 3×3 convolution, a transposed one of stride 2, and a transposed 2×2 convolution in the shortcut. The mask is that of the map.

    Attributes:
      features: channels of the result.
      kernel: side of the transposed convolution's kernel, 3 or 2. With a mask it must be 2, which keeps within the children.
    """

    features: int
    kernel: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool, mask: Mask = None) -> Float[Array, "n 2*h 2*w f"]:
        y = conv(x.shape[-1], 3, dtype=self.dtype, name="conv1")(x)
        y = BatchNorm(is_active=True, dtype=self.dtype, name="bn1")(y, train, mask)
        y = double(self.features, self.kernel, dtype=self.dtype, name="conv2")(y)
        children = None if mask is None else jnp.asarray(to_children(mask))
        y = BatchNorm(dtype=self.dtype, name="bn2")(y, train, children)
        return add_relu(UpShortcut(self.features, self.dtype, name="upsample")(x, train, children), y)


class UpShortcut(nn.Module):
    """A transposed 2×2 convolution of stride 2, and normalization. The mask is that of the result."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, mask: Bool[Array, "n 2*h 2*w"] | None
    ) -> Float[Array, "n 2*h 2*w f"]:
        x = double(self.features, 2, dtype=self.dtype, name="conv")(x)
        return BatchNorm(dtype=self.dtype, name="bn")(x, train, mask)


def double(
    features: int,
    kernel: int,
    *,
    has_bias: bool = False,
    kernel_init: nn.initializers.Initializer = hidden_init,
    dtype: DTypeLike,
    name: str,
) -> nn.ConvTranspose:
    """Make a transposed convolution of stride 2 that doubles the size of a map, with PyTorch's conventions.

    Args:
      features: channels of the output.
      kernel: side of the kernel: 2, or 3 with a padding and an output padding of 1.
      has_bias: whether it has a bias.
      kernel_init: initializer of the kernel.
      dtype: number format of the computation.
      name: name of the module.
    """
    # Padding of the convolution over the input with zeros between its positions.
    padding = (1, 1) if kernel == 2 else (1, 2)
    return nn.ConvTranspose(
        features,
        (kernel, kernel),
        (2, 2),
        padding=(padding, padding),
        use_bias=has_bias,
        transpose_kernel=True,
        kernel_init=kernel_init,
        dtype=dtype,
        name=name,
    )
