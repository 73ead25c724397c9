"""CCNet, criss-cross attention (Huang et al. 2019), as published, on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.attention import project
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.contexts.merge import merge
from pyrseg_jax.models.layers import ConvNormAct, zero_init


class CCNet(nn.Module):
    """Criss-cross attention, twice with the same weights, so that every position reaches every other one.

    Attributes:
      width: channels inside and of the output (N, h, w, width); queries and keys have an eighth of them.

    Source: Huang et al. 2019, its release for semantic segmentation.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(features.final, train)
        criss_cross = CrissCrossAttention(self.width, max(self.width // 8, 1), self.dtype, name="criss_cross")
        x = criss_cross(criss_cross(x))
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="smooth")(x, train)
        return merge((features.final, x), self.width, kernel=3, dropout=0.1, dtype=self.dtype, train=train)


class CrissCrossAttention(nn.Module):
    """Attend from every position to its row and its column, and add the result to the position.

    The softmax is over the H + W - 1 positions of both: the position itself is masked in its column. Scores are not scaled. A
    learned factor, which starts at 0, multiplies the result.

    Attributes:
      width: channels of input and output.
      key_width: channels of queries and keys.
    """

    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w {self.width}"]) -> Float[Array, "n h w {self.width}"]:
        query, key, value = project(x, self.key_width, self.width, self.dtype)
        height = x.shape[1]
        in_column = jnp.einsum("nhwk,ngwk->nhwg", query, key, preferred_element_type=jnp.float32)
        in_column = jnp.where(jnp.eye(height, dtype=bool)[:, None], -jnp.inf, in_column)
        in_row = jnp.einsum("nhwk,nhgk->nhwg", query, key, preferred_element_type=jnp.float32)
        weights = nn.softmax(jnp.concatenate([in_column, in_row], axis=-1), axis=-1).astype(value.dtype)
        found = jnp.einsum("nhwg,ngwc->nhwc", weights[..., :height], value)
        found += jnp.einsum("nhwg,nhgc->nhwc", weights[..., height:], value)
        gamma = self.param("gamma", zero_init, (1,), jnp.float32)
        return x + gamma.astype(self.dtype) * found


SPECS = {
    "ccnet": ContextSpec(
        make_pooled(lambda s: CCNet(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="criss-cross attention (Huang et al. 2019)",
    ),
}
