"""Context modules: from the backbone's features to one feature map per level, coarse → fine.

Each is called as `context(features, train)` with (N, h, w, D) and returns L maps (N, h/2^(L-l), w/2^(L-l), D_s).
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.layers import BasicBlock, ConvNormAct, conv, halve, pyramid_sampling

Levels = tuple[Float[Array, "n _ _ _"], ...]


class Pooled(nn.Module):
    """No context: the backbone's features, averaged to the size of each level.

    Source: Sec. 3.3, "A naive way …"; the rows A, D, E and F of Table 2a.
    """

    num_levels: int
    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "n h w d"], train: bool) -> Levels:
        return tuple(halve(features, times) for times in reversed(range(self.num_levels)))


class CoarseToFine(nn.Module):
    """The paper's coarse-to-fine contextual module (Sec. 3.3, Fig. 2).

    A context θ of 110 tokens is handed from level to level: each level's features aggregate it by attention (Eq. 3) and
    then refresh it with what they have become (Eq. 4), so that a finer level knows what was found at the coarser one.

    Attributes:
      num_levels: L.
      width: D_s, channels of every level's features and of the tokens.
      key_width: channels of queries and keys.

    Chosen: the attention's value has D_s channels and neither normalisation nor ReLU; queries and keys have both. Scores
      are scaled by key_width^-½ and the softmax is taken in float32. The residual block of F_agg is a 1×1 convolution
      2·D_s → D_s followed by a basic block.
    """

    num_levels: int
    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "n h w d"], train: bool) -> Levels:
        project = functools.partial(ConvNormAct, self.width, dtype=self.dtype)
        finest = project(name="reduce")(features, train)
        context = pyramid_sampling(finest)  # θ^(0)
        outputs = []
        for level in range(1, self.num_levels + 1):
            x = halve(finest, self.num_levels - level)
            attended = TokenAttention(self.width, self.key_width, self.dtype, name=f"attention_{level}")(
                x, context, train
            )
            x = project(name=f"aggregate_{level}")(jnp.concatenate([attended, x], axis=-1), train)  # Eq. (3)
            if level < self.num_levels:
                x = BasicBlock(self.width, dtype=self.dtype, name=f"aggregate_block_{level}")(x, train)
                joined = jnp.concatenate([pyramid_sampling(x), context], axis=-1)[
                    :, None
                ]  # tokens as a row: (N, 1, S, 2·D_s)
                context = project(name=f"update_{level}")(joined, train)[:, 0]  # Eq. (4)
            outputs.append(x)
        return tuple(outputs)


class TokenAttention(nn.Module):
    """Attention of every position to a few tokens: query 1×1 of the map, key and value 1×1 of the tokens."""

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
        # Without a bias: attention weights sum to 1, so it would add a constant, which the normalisation of F_agg removes.
        value = conv(self.width, 1, dtype=self.dtype, name="value")(row)[:, 0]
        n, h, w, _ = query.shape
        rows = query.reshape(n, h * w, self.key_width)  # explicit: on CPU twice as fast as an einsum over (h, w)
        scores = jnp.matmul(rows, key.swapaxes(1, 2), preferred_element_type=jnp.float32)
        weights = nn.softmax(scores * self.key_width**-0.5, axis=-1).astype(value.dtype)
        return (weights @ value).reshape(n, h, w, self.width)


CONTEXTS = {"none": Pooled, "coarse_to_fine": CoarseToFine}
