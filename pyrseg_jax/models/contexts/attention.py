"""Attention of every position of a map: to a few tokens, or to all positions."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.layers import ConvNormAct, biased_conv, conv, hidden_init
from pyrseg_jax.models.xla_cpu import multiply_rows

# Weights of one image that `attend_to_all` computes at a time: those of a map of 64 × 64 positions, 64 MiB in float32.
MAX_WEIGHTS = 4096**2


def attend(
    queries: Float[Array, "n h w k"], keys: Float[Array, "n s k"], values: Float[Array, "n s c"]
) -> Float[Array, "n h w c"]:
    """Average the values by how well their keys fit each query: softmax(query · key / √k), computed in float32.

    Args:
      queries: a query for each position of a map.
      keys: a key for each token.
      values: a value for each token.
    """
    n, h, w, width = queries.shape
    # XLA:CPU runs a matrix product over all positions in half the time of an einsum over (h, w).
    rows = queries.reshape(n, h * w, width)
    scores = jnp.matmul(rows, keys.swapaxes(1, 2), preferred_element_type=jnp.float32)
    weights = nn.softmax(scores * width**-0.5, axis=-1).astype(values.dtype)
    return (weights @ values).reshape(n, h, w, -1)


def project(
    x: Float[Array, "n h w c"], key_width: int, width: int, dtype: DTypeLike
) -> tuple[Float[Array, "n h w {key_width}"], Float[Array, "n h w {key_width}"], Float[Array, "n h w {width}"]]:
    """Return query, key and value of each position, by 1×1 convolutions with a bias. Call it inside of a compact method."""
    layer = functools.partial(biased_conv, kernel_init=hidden_init, dtype=dtype)
    return layer(key_width, name="query")(x), layer(key_width, name="key")(x), layer(width, name="value")(x)


class TokenAttention(nn.Module):
    """Attention of every position to a few tokens. The query is a 1×1 convolution of the map; key and value are of the tokens.

    A matrix (width, D) is applied to the result. It multiplies the values instead: both are linear, so the result differs by
    rounding alone, and there are far fewer tokens than positions.

    Attributes:
      width: channels of the values, and of the output where no matrix is given.
      key_width: channels of queries and keys.
    """

    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w c"],
        tokens: Float[Array, "n s c"],
        train: bool,
        matrix: Float[Array, "{self.width} d"] | None = None,
    ) -> Float[Array, "n h w _"]:
        row = tokens[:, None]  # (N, 1, S, C), so that tokens go through the same 1×1 convolutions as maps
        query = ConvNormAct(self.key_width, dtype=self.dtype, name="query")(x, train)
        key = ConvNormAct(self.key_width, dtype=self.dtype, name="key")(row, train)[:, 0]
        # Without a bias: attention weights sum to 1, so it would add a constant, which the normalization of F_agg removes.
        value = conv(self.width, 1, dtype=self.dtype, name="value")(row)[:, 0]
        if matrix is not None:
            value = multiply_rows(value, matrix)
        return attend(query, key, value)


def attend_to_all(
    queries: Float[Array, "n h w k"],
    keys: Float[Array, "n h w k"],
    values: Float[Array, "n h w c"],
    scale: float = 1.0,
) -> Float[Array, "n h w c"]:
    """Average the values of all positions for each position: softmax(scale · query · key), computed in float32.

    There are (h · w)² weights. Beyond `MAX_WEIGHTS` for each image, a few rows of queries attend at a time, and the backward pass
    computes their weights again. The result is the same.

    Args:
      queries, keys, values: maps of one size.
      scale: factor on the scores.
    """
    n, h, w, _ = queries.shape
    keys, values = (x.reshape(n, h * w, -1) for x in (keys, values))

    def attend_rows(rows: Float[Array, "n q k"]) -> Float[Array, "n q c"]:
        scores = jnp.matmul(rows, keys.swapaxes(1, 2), preferred_element_type=jnp.float32)
        return nn.softmax(scores * scale, axis=-1).astype(values.dtype) @ values

    num_parts = next((n for n in range(1, h) if h % n == 0 and (h * w) ** 2 <= n * MAX_WEIGHTS), h)
    if num_parts == 1:
        return attend_rows(queries.reshape(n, h * w, -1)).reshape(n, h, w, -1)
    parts = queries.reshape(n, num_parts, h * w // num_parts, -1).swapaxes(0, 1)
    return jax.lax.map(jax.checkpoint(attend_rows), parts).swapaxes(0, 1).reshape(n, h, w, -1)
