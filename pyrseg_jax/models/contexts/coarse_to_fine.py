"""The paper's own context module."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.attention import TokenAttention
from pyrseg_jax.models.contexts.contract import ContextOutput, ContextSpec, Logits
from pyrseg_jax.models.layers import BasicBlock, ConvNormAct, Kernel, average_levels
from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.models.tokens import sample_tokens
from pyrseg_jax.models.xla_cpu import multiply_rows


class Aggregation(nn.Module):
    """A 1×1 convolution of attended values beside a map, a batch normalization, and a ReLU: the first half of F_agg in Eq. (3).

    The part of the kernel for the attended values is handed to the attention, which applies it to its few tokens.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        attend: Callable[[Float[Array, "{self.width} {self.width}"]], Float[Array, "n h w {self.width}"]],
        x: Float[Array, "n h w {self.width}"],
        train: bool,
    ) -> Float[Array, "n h w {self.width}"]:
        kernel = Kernel(2 * self.width, self.width, name="conv")()[0, 0].astype(self.dtype)
        y = attend(kernel[: self.width]) + multiply_rows(x, kernel[self.width :])
        return BatchNorm(is_active=True, dtype=self.dtype, name="bn")(y, train)


class CoarseToFine(nn.Module):
    """The coarse-to-fine contextual module (Sec. 3.3, Fig. 2).

    A context θ of 110 tokens is handed from level to level. Each level's features first aggregate it by attention (Eq. 3). Then
    they refresh it with what they have become (Eq. 4), so that a finer level knows what the coarser ones found.

    Attributes:
      num_levels: L.
      width: D_s, channels of every level's features and of the tokens.
      key_width: channels of queries and keys.

    Chosen: the attention's value has D_s channels and neither normalization nor ReLU; queries and keys have both. Scores are
      scaled by key_width^-½, and the softmax is computed in float32. The residual block of F_agg is a 1×1 convolution 2·D_s → D_s
      followed by a basic block.
    """

    num_levels: int
    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextOutput:
        project = functools.partial(ConvNormAct, self.width, dtype=self.dtype)
        finest = project(name="reduce")(features.final, train)  # X^(L)
        context = sample_tokens(self, "tokens_0", finest)  # θ^(0)
        outputs = []
        for level, x in enumerate(average_levels(finest, self.num_levels), 1):  # X^(l)
            attention = TokenAttention(self.width, self.key_width, self.dtype, name=f"attention_{level}")
            attend = functools.partial(attention, x, context, train)
            x = Aggregation(self.width, self.dtype, name=f"aggregate_{level}")(attend, x, train)  # Eq. (3)
            if level < self.num_levels:
                x = BasicBlock(self.width, dtype=self.dtype, name=f"aggregate_block_{level}")(x, train)
                sampled = sample_tokens(self, f"tokens_{level}", x)
                joined = jnp.concatenate([sampled, context], axis=-1)
                # The tokens form a row of a map (N, 1, S, 2·D_s), so that they go through the same 1×1 convolution as maps.
                context = project(name=f"update_{level}")(joined[:, None], train)[:, 0]  # Eq. (4)
            outputs.append(x)
        return ContextOutput(tuple(outputs))


SPECS = {
    "coarse_to_fine": ContextSpec(
        lambda s: CoarseToFine(s.num_levels, s.width, s.key_width, s.dtype),
        meaning="the paper's coarse-to-fine module (Sec. 3.3)",
    ),
}
