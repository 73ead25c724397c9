"""The layers that transformers and their convolutional relatives are made of: normalizations, drop path, layer scale, MLP."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.xla_cpu import gelu, multiply_rows
from pyrseg_jax.models.xla_cpu_depthwise import convolve_depthwise

LAYER_NORM_EPSILON = 1e-6
# Kernels of dense layers, as all these networks begin: a normal distribution, cut off at two standard deviations.
TOKEN_INIT_STD = 0.02
token_init = nn.initializers.truncated_normal(TOKEN_INIT_STD)

# Factors of one residual branch for each image: 0, or 1 / (1 - rate). None: the branch is always added.
Factors = Float[Array, "n"] | None


def layer_norm(dtype: DTypeLike, name: str | None = None, epsilon: float = LAYER_NORM_EPSILON) -> nn.LayerNorm:
    """Make a normalization over the channels of each position; its statistics are computed in float32.

    Args:
      dtype: number format of the result.
      name: name of the module.
      epsilon: added to the variance. Publishers differ: 1e-6 and 1e-5 are common.
    """
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, name=name, use_fast_variance=False)


def dense(features: int, dtype: DTypeLike, name: str | None = None, use_bias: bool = True) -> nn.Dense:
    """Make a dense layer over the last axis."""
    return nn.Dense(features, use_bias, dtype=dtype, kernel_init=token_init, dot_general=multiply_rows, name=name)


class Mlp(nn.Module):
    """Two dense layers with an activation between them: (…, C) → (…, C).

    Attributes:
      width: channels between the two layers.
      act: the activation.
      dtype: number format of the computation.
    """

    width: int
    act: Callable = gelu
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*dims c"]) -> Float[Array, "*dims c"]:
        hidden = self.act(dense(self.width, self.dtype, "fc1")(x))
        return dense(x.shape[-1], self.dtype, "fc2")(hidden)


class DepthwiseConv(nn.Module):
    """Convolve each channel with a kernel of its own and add a bias: (N, h, w, C) → (N, h, w, C).

    This is `nn.Conv` with as many groups as channels and zeros around the map, with the same parameters.

    Attributes:
      side: of the kernel, odd.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
      dtype: number format of the computation.
    """

    side: int
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        width, pad = x.shape[-1], self.side // 2
        kernel = self.param("kernel", self.kernel_init, (self.side, self.side, 1, width))
        bias = self.param("bias", self.bias_init, (width,))
        x, kernel, bias = (jnp.asarray(array, self.dtype) for array in (x, kernel, bias))
        return convolve_depthwise(x, kernel, (1, 1), ((pad, pad), (pad, pad)), bias=bias)


class LayerScale(nn.Module):
    """Multiply each channel by a learned factor, which starts small.

    Source: Touvron et al. 2021, "Going deeper with image transformers".
    """

    first: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*dims c"]) -> Float[Array, "*dims c"]:
        gamma = self.param("gamma", nn.initializers.constant(self.first), (x.shape[-1],))
        return x * gamma.astype(x.dtype)


class GlobalResponseNorm(nn.Module):
    """Scale each channel by its norm over all positions, relative to the mean norm of the channels, and add the input.

    The norms are computed in float32. At the start of a training, the layer returns its input.

    Source: Woo et al. 2023, "ConvNeXt V2", Algorithm 1.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        gamma = self.param("gamma", nn.initializers.zeros, (x.shape[-1],))
        beta = self.param("beta", nn.initializers.zeros, (x.shape[-1],))
        squares = jnp.square(x.astype(jnp.float32)).sum((1, 2), keepdims=True)
        # The square root has no gradient at 0; the norm's is 0 there.
        norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        relative = norms / (norms.mean(-1, keepdims=True) + self.epsilon)
        return x * (1 + gamma * relative).astype(x.dtype) + beta.astype(x.dtype)


def drop_path_rates(highest: float, num_blocks: int) -> tuple[float, ...]:
    """Return the rate of each block: from 0 at the first to the highest at the last, in equal steps."""
    return tuple(float(rate) for rate in np.linspace(0, highest, num_blocks))


def draw_factors(
    parent: nn.Module, rates: Sequence[float], num_images: Any, train: bool, branches: int = 1
) -> list[Float[Array, "b n"] | None]:
    """Draw the factors of drop path (stochastic depth) for the residual branches of all blocks of a network, in one call.

    A factor is 0 with the block's rate, which leaves the branch out for one image, and 1 / (1 - rate) otherwise. Blocks take their
    factors as an argument and hold no random state, so that equal blocks are traced once; see `blocks.apply_blocks`.

    Args:
      parent: the module that calls this; it has the random stream "dropout".
      rates: the rate of each block, 0 … 1; see `drop_path_rates`.
      num_images: N, an integer, or an expression in a program that is exported for any number of images.
      train: outside of training every branch is added.
      branches: residual branches of a block.

    Returns:
      for each block, an array (branches, N); None, for every block, where nothing is dropped.

    Source: Huang et al. 2016, "Deep networks with stochastic depth".
    """
    if not train or not any(rates) or parent.is_initializing():
        return [None] * len(rates)
    keep = 1 - jnp.asarray(rates, jnp.float32)[:, None, None]
    is_kept = jax.random.bernoulli(parent.make_rng("dropout"), keep, (len(rates), branches, num_images))
    return list(is_kept / keep)


def add_branch(x: Float[Array, "n *dims c"], branch: Float[Array, "n *dims c"], factors: Factors = None):
    """Return x plus a residual branch, each image's multiplied by its factor of drop path."""
    if factors is None:
        return x + branch
    return x + branch * factors.astype(branch.dtype).reshape(-1, *[1] * (branch.ndim - 1))


def attend(
    query: Float[Array, "n t heads d"],
    key: Float[Array, "n s heads d"],
    value: Float[Array, "n s heads d"],
    bias: Float[Array, "#n #heads t s"] | None = None,
) -> Float[Array, "n t heads d"]:
    """Return softmax(query · key / √d + bias) · value for each head; the softmax is computed in float32."""
    return jax.nn.dot_product_attention(query, key, value, bias=bias)
