"""Context modules: from the backbone's features to one feature map per level, coarse → fine.

Each is called as `context(features, auxiliary, train)` with features (N, h, w, D) and the class logits (N, h, w, C) of the
auxiliary classifier, or None where there is none; it returns L maps (N, h/2^(L-l), w/2^(L-l), channels).
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.contexts.attention import TokenAttention
from pyrseg_jax.models.contexts.baselines import BASELINES
from pyrseg_jax.models.layers import BasicBlock, ConvNormAct, halve, pyramid_sampling

Features = Float[Array, "n h w d"]
Logits = Float[Array, "n h w c"]
Levels = tuple[Float[Array, "n _ _ _"], ...]


class Pooled(nn.Module):
    """One map, averaged to the size of each level.

    Attributes:
      num_levels: L.
      context: (features, auxiliary, train) → the map; None: the backbone's features as they are.

    Source: Sec. 3.3, "A naive way …"; without a context the rows A, D, E and F of Table 2a, with ANL the rows B and G.
    """

    num_levels: int
    context: nn.Module | None = None

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Levels:
        x = features if self.context is None else self.context(features, auxiliary, train)
        return tuple(halve(x, times) for times in reversed(range(self.num_levels)))


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
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Levels:
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


CONTEXTS = ("none", *BASELINES, "coarse_to_fine")


def build_context(name: str, num_levels: int, width: int, key_width: int, dtype: DTypeLike) -> nn.Module:
    """Build one of `CONTEXTS`.

    Args:
      name: `"none"`, a published module by its name in `BASELINES`, or `"coarse_to_fine"`, the paper's own.
      num_levels: L.
      width: channels of its output; `"none"` keeps the backbone's.
      key_width: channels of queries and keys.
      dtype: of the computation.
    """
    if name == "coarse_to_fine":
        return CoarseToFine(num_levels, width, key_width, dtype)
    return Pooled(num_levels, BASELINES[name](width, key_width, dtype) if name in BASELINES else None)
