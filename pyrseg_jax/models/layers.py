"""The layers that every network here is made of. Their conventions (padding, initialization) are written once, in this file."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.models.xla_cpu import add_relu, convolve_as_matrix_product
from pyrseg_jax.models.xla_cpu_convolution import convolve
from pyrseg_jax.models.xla_cpu_depthwise import convolve_depthwise

# Kernels before a normalization and a ReLU: He et al. 2015, scaled by the number of inputs ("fan in"). Scaled by the number of
# outputs, the first layer, which has 3 input channels, would start many times smaller than its gradient, and the first training
# steps would throw it far away.
hidden_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
# Kernels that neither a normalization nor a ReLU follows: Glorot and Bengio 2010.
linear_init = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")
# Kernels of logits start near zero, so that training starts from even odds for all classes.
OUTPUT_INIT_STD = 0.01
output_init = nn.initializers.normal(OUTPUT_INIT_STD)
# Layers whose output is added to something else start by adding nothing.
zero_init = nn.initializers.zeros

# Positions that a layer computes; elsewhere its input and its output are 0. None: all positions.
Mask = Bool[Array, "n _ _"] | None

PYRAMID_SAMPLING_SIZES = (1, 3, 6, 8)  # bins per side of each pooled map: 110 tokens in all; Sec. 3.3


def conv(
    features: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    *,
    dtype: DTypeLike,
    name: str | None = None,
) -> nn.Conv:
    """Make a square convolution without a bias, for a batch normalization to follow.

    The output has the input's size, divided by the stride. The padding is explicit, dilation · (kernel - 1) / 2 on both sides:
    "SAME" pads a stride-2 convolution on one side only, which would shift the output by a pixel against published weights.

    Args:
      features: channels of the output.
      kernel: side of the kernel, odd.
      stride: positions from one output to the next.
      dilation: positions from one tap of the kernel to the next.
      groups: the channels are divided into as many groups, and each group of outputs reads one group of inputs.
      dtype: number format of the computation. The kernel is stored as float32.
      name: name of the module.
    """
    pad = dilation * (kernel - 1) // 2
    if 1 < groups == features:
        quick = convolve_depthwise
    elif groups > 1:
        quick = None
    else:
        quick = convolve_as_matrix_product if kernel == stride == 1 else convolve
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        padding=((pad, pad), (pad, pad)),
        kernel_dilation=(dilation, dilation),
        feature_group_count=groups,
        use_bias=False,
        kernel_init=hidden_init,
        conv_general_dilated=quick,
        dtype=dtype,
        name=name,
    )


def biased_conv(
    features: int,
    kernel: int = 1,
    *,
    kernel_init: nn.initializers.Initializer = output_init,
    dtype: DTypeLike,
    name: str | None = None,
) -> nn.Conv:
    """Make a convolution without overlap (stride = kernel) that no normalization follows, so it has a bias.

    Args:
      features: channels of the output.
      kernel: side of the kernel, and the stride.
      kernel_init: initializer of the kernel; by default the one for layers of logits.
      dtype: number format of the computation. Kernel and bias are stored as float32.
      name: name of the module.
    """
    size = (kernel, kernel)
    return nn.Conv(
        features,
        size,
        size,
        padding="VALID",
        kernel_init=kernel_init,
        conv_general_dilated=convolve_as_matrix_product,
        dtype=dtype,
        name=name,
    )


class Kernel(nn.Module):
    """The kernel (1, 1, inputs, features) of a 1×1 convolution, for layers that apply parts of it to several maps."""

    inputs: int
    features: int
    kernel_init: nn.initializers.Initializer = hidden_init

    @nn.compact
    def __call__(self) -> Float[Array, "1 1 {self.inputs} {self.features}"]:
        return jnp.asarray(self.param("kernel", self.kernel_init, (1, 1, self.inputs, self.features)))


class ConvNormAct(nn.Module):
    """Convolution, batch normalization and, if `is_active`, ReLU: (N, H, W, C) → (N, H/stride, W/stride, features).

    A mask has the size of the result. With `scale_init=zero_init`, the layer starts by returning zeros.
    """

    features: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    is_active: bool = True
    dtype: DTypeLike = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool, mask: Mask = None) -> Float[Array, "n _ _ f"]:
        shape = (self.features, self.kernel, self.stride, self.dilation, self.groups)
        x = conv(*shape, dtype=self.dtype, name="conv")(x)
        return BatchNorm(self.is_active, self.dtype, self.scale_init, name="bn")(x, train, mask)


class BasicBlock(nn.Module):
    """A residual block of two 3×3 convolutions; keeps the shape of its input.

    Source: He et al. 2016.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w f"], train: bool, mask: Mask = None) -> Float[Array, "n h w f"]:
        y = conv(self.features, 3, dtype=self.dtype, name="conv1")(x)
        y = BatchNorm(is_active=True, dtype=self.dtype, name="bn1")(y, train, mask)
        y = conv(self.features, 3, dtype=self.dtype, name="conv2")(y)
        return add_relu(x, BatchNorm(dtype=self.dtype, name="bn2")(y, train, mask))


class Bottleneck(nn.Module):
    """A residual block of 1×1, 3×3 and 1×1 convolutions; the last one is four times as wide as the others.

    A 1×1 convolution stands in the shortcut where the size or the number of channels changes. With a mask, the stride is 1.

    Attributes:
      features: channels of the first two convolutions.
      stride, dilation: of the 3×3 convolution.

    Source: He et al. 2016, with the stride in the 3×3 convolution, as PyTorch's networks have it.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, mask: Mask = None
    ) -> Float[Array, "n _ _ 4*{self.features}"]:
        y = conv(self.features, 1, dtype=self.dtype, name="conv1")(x)
        y = BatchNorm(is_active=True, dtype=self.dtype, name="bn1")(y, train, mask)
        y = conv(self.features, 3, self.stride, self.dilation, dtype=self.dtype, name="conv2")(y)
        y = BatchNorm(is_active=True, dtype=self.dtype, name="bn2")(y, train, mask)
        y = conv(4 * self.features, 1, dtype=self.dtype, name="conv3")(y)
        y = BatchNorm(dtype=self.dtype, name="bn3")(y, train, mask)
        if x.shape[-1] != 4 * self.features or self.stride > 1:
            shortcut = ConvNormAct(
                4 * self.features, stride=self.stride, is_active=False, dtype=self.dtype, name="downsample"
            )
            x = shortcut(x, train, mask)
        return add_relu(x, y)


def drop_channels(x: Float[Array, "n h w c"], share: float, train: bool) -> Float[Array, "n h w c"]:
    """Leave out a share of the channels in training, each for a whole image. Call it inside of a compact method."""
    if not share:
        return x
    return nn.Dropout(share, broadcast_dims=(1, 2), deterministic=not train)(x)


def average_levels(x: Float[Array, "n h w c"], num_levels: int) -> tuple[Float[Array, "n _ _ c"], ...]:
    """Return a map averaged to the size of every level of a pyramid, coarse to fine; the finest level is the map itself.

    Each level averages 2 × 2 positions of the next finer one: these are averages of the finest level, too, and take fewer reads.
    (h, w) must be multiples of 2^(num_levels - 1).
    """
    levels = [x]
    for _ in range(num_levels - 1):
        levels.append(nn.avg_pool(levels[-1], (2, 2), (2, 2)))
    return tuple(reversed(levels))


def pyramid_sampling(
    x: Float[Array, "n h w c"], sizes: Sequence[int] = PYRAMID_SAMPLING_SIZES
) -> Float[Array, "n s c"]:
    """Average a map over n × n overlapping bins for each n of `sizes`, flatten, and join: S = Σ n² tokens.

    Bin i of n covers positions ⌊i·h/n⌋ … ⌈(i+1)·h/n⌉ - 1, as in adaptive average pooling, so that maps smaller than n × n work
    as well.

    Source: Sec. 3.3, PyramidSampling.
    """
    n, h, w, c = x.shape
    # One product reads the large map once, for the rows of all bins. The columns of each size are then small.
    all_rows = jnp.asarray(np.concatenate([bin_weights(h, size) for size in sizes]), x.dtype)
    strips = (all_rows @ x.reshape(n, h, w * c)).reshape(n, -1, w, c)
    tokens, first = [], 0
    for size in sizes:
        columns = jnp.asarray(bin_weights(w, size), x.dtype)
        pooled = jnp.einsum("nhwc,jw->nhjc", strips[:, first : first + size], columns)
        tokens.append(pooled.reshape(n, size * size, c))
        first += size
    return jnp.concatenate(tokens, axis=1)


@functools.lru_cache
def bin_weights(side: int, num_bins: int) -> Float[np.ndarray, "{num_bins} {side}"]:
    """Return the weights of adaptive average pooling along one axis: row i averages the positions of bin i."""
    weights = np.zeros((num_bins, side), np.float32)
    for i in range(num_bins):
        first, end = i * side // num_bins, -(-(i + 1) * side // num_bins)
        weights[i, first:end] = 1 / (end - first)
    return weights
