"""PSPNet, pyramid pooling (Zhao et al. 2017), as published, on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.contexts.merge import merge
from pyrseg_jax.models.contexts.pyramid_pooling import pool_pyramid


class PSPNet(nn.Module):
    """Join the map with its averages over 1, 2, 3 and 6 bins per side, and convolve them.

    Attributes:
      width: channels of each average and of the output (N, h, w, width).
      resize: convention for bringing the averages back to the size of the map.

    Source: Zhao et al. 2017; the releases of semseg (align-corners) and mmsegmentation (half-pixel) have the same layers.
    """

    width: int
    resize: str = "half_pixel"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = features.final
        pooled = pool_pyramid(x, self.width, self.resize, dtype=self.dtype, train=train)
        return merge((x, *pooled), self.width, kernel=3, dropout=0.1, dtype=self.dtype, train=train)


SPECS = {
    "pspnet": ContextSpec(
        make_pooled(lambda s: PSPNet(s.width, s.resize, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="pyramid pooling (Zhao et al. 2017)",
    ),
}
