"""Non-local networks (Wang et al. 2018) for segmentation, on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.attention import attend_to_all
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.contexts.merge import merge
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, zero_init


class NonLocal(nn.Module):
    """A non-local block: every position attends to all positions, and the result is added to it.

    Attributes:
      width: channels inside and of the output (N, h, w, width).
      key_width: channels of queries, keys and values.

    Source: Wang et al. 2018, "embedded Gaussian" with scaled scores, and mmsegmentation's NLHead for the layers around the block.
      Query, key and value start from N(0, 0.01). The normalization after the output projection starts with scales of 0, so that
      the block starts as the identity.
    """

    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(features.final, train)
        query, key, value = (
            biased_conv(self.key_width, dtype=self.dtype, name=name)(x) for name in ("query", "key", "value")
        )
        attended = attend_to_all(query, key, value, scale=self.key_width**-0.5)
        x += ConvNormAct(self.width, is_active=False, dtype=self.dtype, scale_init=zero_init, name="out")(
            attended, train
        )
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="smooth")(x, train)
        return merge((features.final, x), self.width, kernel=3, dropout=0.1, dtype=self.dtype, train=train)


SPECS = {
    "nonlocal": ContextSpec(
        make_pooled(lambda s: NonLocal(s.width, s.key_width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="non-local attention (Wang et al. 2018)",
    ),
}
