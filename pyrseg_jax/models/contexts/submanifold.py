"""Layers that compute only some cells of a map: submanifold convolutions, as dense ones with a mask.

A submanifold convolution reads and writes active cells only; all other cells are 0. That equals a dense convolution of a map that
is 0 at inactive cells, with its result set to 0 there. Without a mask, all cells are active, and these are the usual layers.

Source: Graham et al. 2018, "3D Semantic Segmentation with Submanifold Sparse Convolutional Networks".
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from pyrseg_jax.models.layers import conv, hidden_init
from pyrseg_jax.models.normalization import EPSILON, MOMENTUM, BatchNorm
from pyrseg_jax.models.xla_cpu import add_relu
from pyrseg_jax.pyramid.levels import to_children

Mask = Bool[Array, "n h w"]
# A map, which is 0 at inactive cells, and its active cells; None: all.
Cells = tuple[Float[Array, "n h w c"], Mask | None]
FinerCells = tuple[
    Float[Array, "n _ _ _"], Bool[Array, "n _ _"] | None
]  # of another size than those that a layer reads


class ActiveNorm(nn.Module):
    """Normalize each channel over the active cells of (N, H, W), as `BatchNorm` does over all; other cells become 0.

    Where no cell is active, the running statistics stay as they are.
    """

    is_active: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], active: Mask, train: bool) -> Float[Array, "n h w c"]:
        channels = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        mean, var = running_mean.value, running_var.value
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if train:
            weights = active[..., None].astype(wide.dtype)
            count = weights.sum()
            mean = (weights * wide).sum((0, 1, 2)) / jnp.maximum(count, 1)
            var = (weights * jnp.square(wide - mean)).sum((0, 1, 2)) / jnp.maximum(count, 1)
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_var, var)):
                    moved = MOMENTUM * running.value + (1 - MOMENTUM) * jax.lax.stop_gradient(new)
                    running.value = jnp.where(count > 0, moved, running.value)
        y = (wide - mean) * (jax.lax.rsqrt(var + EPSILON) * scale) + bias
        y = nn.relu(y) if self.is_active else y
        return jnp.where(active[..., None], y, 0).astype(self.dtype)


def normalize(
    x: Float[Array, "n h w c"], active: Mask | None, train: bool, *, is_active: bool, dtype: DTypeLike, name: str
) -> Float[Array, "n h w c"]:
    """Normalize a map over its active cells, with the variables of a batch normalization. Call it inside of a compact method."""
    if active is None:
        return BatchNorm(is_active, dtype, name=name)(x, train)
    return ActiveNorm(is_active, dtype, name=name)(x, active, train)


class ActiveProjection(nn.Module):
    """A 1×1 convolution, normalization and ReLU of the active cells."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], active: Mask | None, train: bool) -> Float[Array, "n h w f"]:
        x = conv(self.features, 1, dtype=self.dtype, name="conv")(x)
        return normalize(x, active, train, is_active=True, dtype=self.dtype, name="bn")


class ActiveBlock(nn.Module):
    """A residual block of two 3×3 convolutions over the active cells: `layers.BasicBlock` with a mask."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, cells: Cells, train: bool) -> Cells:
        x, active = cells
        y = conv(self.features, 3, dtype=self.dtype, name="conv1")(x)
        y = normalize(y, active, train, is_active=True, dtype=self.dtype, name="bn1")
        y = conv(self.features, 3, dtype=self.dtype, name="conv2")(y)
        y = normalize(y, active, train, is_active=False, dtype=self.dtype, name="bn2")
        return add_relu(x, y), active


class UpBlock(nn.Module):
    """A residual block that doubles the size of a map: (N, h, w, C) → (N, 2h, 2w, features).

    A 3×3 convolution, a transposed one of stride 2, and a transposed 2×2 convolution in the shortcut. The children of active cells
    are active.

    Attributes:
      features: channels of the result.
      kernel: side of the transposed convolution's kernel, 3 or 2. With a mask it must be 2, which keeps within the children.
    """

    features: int
    kernel: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, cells: Cells, train: bool) -> FinerCells:
        x, active = cells
        y = conv(x.shape[-1], 3, dtype=self.dtype, name="conv1")(x)
        y = normalize(y, active, train, is_active=True, dtype=self.dtype, name="bn1")
        y = double(self.features, self.kernel, dtype=self.dtype, name="conv2")(y)
        children = None if active is None else jnp.asarray(to_children(active))
        y = normalize(y, children, train, is_active=False, dtype=self.dtype, name="bn2")
        x = UpShortcut(self.features, self.dtype, name="upsample")(x, children, train)
        return add_relu(x, y), children


class UpShortcut(nn.Module):
    """A transposed 2×2 convolution of stride 2, and normalization of the active cells."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], active: Bool[Array, "n 2*h 2*w"] | None, train: bool
    ) -> Float[Array, "n 2*h 2*w f"]:
        x = double(self.features, 2, dtype=self.dtype, name="conv")(x)
        return normalize(x, active, train, is_active=False, dtype=self.dtype, name="bn")


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
