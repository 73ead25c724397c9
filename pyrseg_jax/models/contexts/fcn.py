"""FCN, the fully convolutional head (Long et al. 2015), as mmsegmentation builds it, on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.contexts.merge import merge
from pyrseg_jax.models.layers import ConvNormAct


class FCN(nn.Module):
    """Two 3×3 convolutions, joined with the map that they read, and a third one: no context beyond their reach.

    Attributes:
      width: channels inside and of the output (N, h, w, width).

    Source: mmsegmentation's FCN on dilated ResNets (`fcn_r101-d8`). Long et al. 2015 classify the map of the backbone directly.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = features.final
        for i in (1, 2):
            x = ConvNormAct(self.width, 3, dtype=self.dtype, name=f"conv_{i}")(x, train)
        return merge((features.final, x), self.width, kernel=3, dropout=0.1, dtype=self.dtype, train=train)


SPECS = {
    "fcn": ContextSpec(
        make_pooled(lambda s: FCN(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="convolutions alone (Long et al. 2015, as in mmsegmentation)",
    ),
}
