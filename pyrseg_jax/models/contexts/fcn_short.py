"""FCN, the fully convolutional head (Long et al. 2015), as PyTorch-Encoding builds it, on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.layers import ConvNormAct, drop_channels


class ShortFCN(nn.Module):
    """One 3×3 convolution before the classifier: no context beyond its reach.

    Attributes:
      width: channels of the output (N, h, w, width).

    Source: the public code of PyTorch-Encoding (`FCNHead`).
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(features.final, train)
        return drop_channels(x, 0.1, train)


SPECS = {
    "fcn_short": ContextSpec(
        make_pooled(lambda s: ShortFCN(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="one convolution (Long et al. 2015, as in PyTorch-Encoding)",
    ),
}
