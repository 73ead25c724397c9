"""Attention of every position of a map to a few tokens."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.layers import ConvNormAct, conv


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


class TokenAttention(nn.Module):
    """Attention of every position to a few tokens. The query is a 1×1 convolution of the map; key and value are of the tokens.

    Attributes:
      width: channels of the values and of the output.
      key_width: channels of queries and keys.
    """

    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], tokens: Float[Array, "n s c"], train: bool
    ) -> Float[Array, "n h w {self.width}"]:
        row = tokens[:, None]  # (N, 1, S, C), so that tokens go through the same 1×1 convolutions as maps
        query = ConvNormAct(self.key_width, dtype=self.dtype, name="query")(x, train)
        key = ConvNormAct(self.key_width, dtype=self.dtype, name="key")(row, train)[:, 0]
        # Without a bias: attention weights sum to 1, so it would add a constant, which the normalization of F_agg removes.
        value = conv(self.width, 1, dtype=self.dtype, name="value")(row)[:, 0]
        return attend(query, key, value)
