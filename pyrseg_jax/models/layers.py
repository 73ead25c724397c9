"""The convolutions and resampling that every network here is made of, with their conventions written once."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.normalization import BatchNorm

# Before a normalisation and ReLU: He et al. 2015, by incoming connections. By outgoing ones the first layer, which has few
# inputs, starts many times smaller than its gradient, and the first steps throw it far away.
hidden_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
# Where logits come out: near zero, so that training starts from even odds.
OUTPUT_INIT_STD = 0.01
output_init = nn.initializers.normal(OUTPUT_INIT_STD)
# What is added to something else, and shall add nothing at first.
zero_init = nn.initializers.zeros


def conv(features: int, kernel: int, stride: int = 1, *, dtype: DTypeLike, name: str | None = None) -> nn.Conv:
    """Make a square convolution that keeps the size up to its stride; a batch normalisation follows, so it has no bias.

    The padding is explicit, (kernel - 1) / 2 on both sides: "SAME" pads a stride-2 convolution on one side only, which
    shifts the output by a pixel against published weights.
    """
    pad = (kernel - 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        padding=((pad, pad), (pad, pad)),
        use_bias=False,
        kernel_init=hidden_init,
        conv_general_dilated=_as_matrix_product if kernel == stride == 1 else None,
        dtype=dtype,
        name=name,
    )


def biased_conv(
    features: int, kernel: int = 1, *, kernel_init=output_init, dtype: DTypeLike, name: str | None = None
) -> nn.Conv:
    """Make a convolution without overlap (stride = kernel) that no normalisation follows, so it has a bias.

    By default its kernel starts as that of a layer of logits does.
    """
    size = (kernel, kernel)
    return nn.Conv(
        features,
        size,
        size,
        padding="VALID",
        kernel_init=kernel_init,
        conv_general_dilated=_as_matrix_product,
        dtype=dtype,
        name=name,
    )


def _as_matrix_product(x, kernel, strides, padding, **_):
    """Convolve without overlap (kernel = stride): the pixels of each cell, as one long vector, times the kernel.

    The same numbers as `jax.lax.conv_general_dilated`; XLA's gradient of that for a 1×1 kernel takes many times longer on
    CPU (`docs/performance.md`).
    """
    size = kernel.shape[0]
    n, h, w, c = x.shape
    if size > 1:
        x = x.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, h // size, w // size, size * size * c)
    return x @ kernel.reshape(size * size * c, -1)


@jax.custom_jvp
def add_relu(x: Float[Array, "*shape"], y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return max(x + y, 0), of finite numbers.

    Written so that the last operation is a sum of two maps. What ends in a maximum with a constant XLA's CPU compiler takes to
    be cheap, and computes again in every fusion that reads it, along all the residual blocks before (`docs/performance.md`).
    """
    return x + jnp.maximum(y, -x)


@add_relu.defjvp
def _add_relu_jvp(primals, tangents):
    out = add_relu(*primals)
    return out, jnp.where(out > 0, sum(tangents), 0)  # as ReLU has it: none at 0


class ConvNormAct(nn.Module):
    """Convolution, batch normalisation and, if `is_active`, ReLU: (N, H, W, C) → (N, H/stride, W/stride, features)."""

    features: int
    kernel: int = 1
    stride: int = 1
    is_active: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n _ _ f"]:
        x = conv(self.features, self.kernel, self.stride, dtype=self.dtype, name="conv")(x)
        return BatchNorm(self.is_active, self.dtype, name="bn")(x, train)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside an identity (He et al. 2016)."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w f"], train: bool) -> Float[Array, "n h w f"]:
        y = conv(self.features, 3, dtype=self.dtype, name="conv1")(x)
        y = BatchNorm(is_active=True, dtype=self.dtype, name="bn1")(y, train)
        y = conv(self.features, 3, dtype=self.dtype, name="conv2")(y)
        return add_relu(x, BatchNorm(dtype=self.dtype, name="bn2")(y, train))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, the last one four times as wide, beside an identity or a projection (He et al. 2016)."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w 4*{self.features}"]:
        y = conv(self.features, 1, dtype=self.dtype, name="conv1")(x)
        y = BatchNorm(is_active=True, dtype=self.dtype, name="bn1")(y, train)
        y = conv(self.features, 3, dtype=self.dtype, name="conv2")(y)
        y = BatchNorm(is_active=True, dtype=self.dtype, name="bn2")(y, train)
        y = conv(4 * self.features, 1, dtype=self.dtype, name="conv3")(y)
        y = BatchNorm(dtype=self.dtype, name="bn3")(y, train)
        if x.shape[-1] != 4 * self.features:
            x = ConvNormAct(4 * self.features, is_active=False, dtype=self.dtype, name="downsample")(x, train)
        return add_relu(x, y)


def halve(x: Float[Array, "n h w c"], times: int) -> Float[Array, "n _ _ c"]:
    """Average over blocks of 2^times × 2^times positions."""
    if not times:
        return x
    n, h, w, c = x.shape
    block = 1 << times
    # Not `nn.avg_pool`: the gradient of its window takes six times longer on CPU.
    return x.reshape(n, h // block, block, w // block, block, c).mean((2, 4))


PYRAMID_SAMPLING_SIZES = (1, 3, 6, 8)  # 110 tokens; Sec. 3.3


def pyramid_sampling(
    x: Float[Array, "n h w c"], sizes: Sequence[int] = PYRAMID_SAMPLING_SIZES
) -> Float[Array, "n s c"]:
    """Average a map over n × n overlapping bins for each n of `sizes`, flatten, and join: S = Σ n² tokens.

    Source: Sec. 3.3, PyramidSampling; the bins are those of adaptive average pooling: bin i of n covers positions
    ⌊i·h/n⌋ … ⌈(i+1)·h/n⌉ - 1, so that maps smaller than n × n work, too.
    """
    n, h, w, c = x.shape
    # The large map is read once, for the rows of all bins; the columns of each size are then small.
    all_rows = jnp.asarray(np.concatenate([_bin_weights(h, size) for size in sizes]), x.dtype)
    strips = (all_rows @ x.reshape(n, h, w * c)).reshape(n, -1, w, c)
    tokens, first = [], 0
    for size in sizes:
        columns = jnp.asarray(_bin_weights(w, size), x.dtype)
        pooled = jnp.einsum("nhwc,jw->nhjc", strips[:, first : first + size], columns)
        tokens.append(pooled.reshape(n, size * size, c))
        first += size
    return jnp.concatenate(tokens, axis=1)


@functools.lru_cache
def _bin_weights(side: int, bins: int) -> np.ndarray:
    """Return (bins, side) weights that average each bin of an adaptive average pooling."""
    weights = np.zeros((bins, side), np.float32)
    for i in range(bins):
        first, end = i * side // bins, -(-(i + 1) * side // bins)
        weights[i, first:end] = 1 / (end - first)
    return weights
