"""ANL, asymmetric non-local attention (Zhu et al. 2019), as published, on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.attention import attend
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.contexts.merge import merge
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, hidden_init, zero_init
from pyrseg_jax.models.tokens import sample_tokens


class ANL(nn.Module):
    """Asymmetric non-local attention, in its form for one map: each position attends to 110 pooled positions.

    Attributes:
      width: channels inside and of the output (N, h, w, width).
      key_width: channels of queries, keys and values.
      dropout: share of the output's channels that training leaves out.

    Source: Zhu et al. 2019 (APNB), with the sizes of its release for semantic segmentation. Query and key are one projection; keys
      and values are pooled after their projection. The output projection starts at zero.
    """

    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32
    dropout: float = 0.05

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(features.final, train)
        queries = ConvNormAct(self.key_width, dtype=self.dtype, name="key")(x, train)
        values = biased_conv(self.key_width, kernel_init=hidden_init, dtype=self.dtype, name="value")(x)
        attended = attend(queries, sample_tokens(self, "keys", queries), sample_tokens(self, "values", values))
        context = biased_conv(self.width, kernel_init=zero_init, dtype=self.dtype, name="out")(attended)
        return merge((context, x), self.width, kernel=1, dropout=self.dropout, dtype=self.dtype, train=train)


SPECS = {
    "anl": ContextSpec(
        make_pooled(lambda s: ANL(s.width, s.key_width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="asymmetric non-local attention (Zhu et al. 2019)",
    ),
}
