"""APCNet, adaptive pyramid context (He et al. 2019), on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.contexts.merge import merge
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, hidden_init, pyramid_sampling

SCALES = (1, 2, 3, 6)  # regions per side


class APCNet(nn.Module):
    """Regions of four sizes: each position adds up the regions' features by weights that it predicts.

    Attributes:
      width: channels inside and of the output (N, h, w, width).

    Source: He et al. 2019, as in mmsegmentation's APCHead.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = features.final
        # The regions of all sizes come from one pass over the map.
        regions = jnp.split(pyramid_sampling(x, SCALES), np.cumsum(np.square(SCALES))[:-1], axis=1)
        contexts = (
            AdaptiveContext(self.width, self.dtype, name=f"scale_{scale}")(x, tokens, train)
            for scale, tokens in zip(SCALES, regions, strict=True)
        )
        return merge((x, *contexts), self.width, kernel=3, dropout=0.1, dtype=self.dtype, train=train)


class AdaptiveContext(nn.Module):
    """The context from regions of one size.

    The weight of each region at a position is the sigmoid of a linear function of the position's feature plus a global feature.

    Attributes:
      width: channels inside and of the output.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], regions: Float[Array, "n s c"], train: bool
    ) -> Float[Array, "n h w {self.width}"]:
        def project(y: Array, name: str) -> Array:
            return ConvNormAct(self.width, dtype=self.dtype, name=name)(y, train)

        x = project(x, "reduce")
        # (N, 1, S, C), so that regions go through the same layers as maps; and (N, 1, 1, width).
        regions = project(regions[:, None], "regions")[:, 0]
        whole = project(x.mean((1, 2), keepdims=True), "global")
        affinity = biased_conv(regions.shape[1], kernel_init=hidden_init, dtype=self.dtype, name="affinity")(x + whole)
        n, h, w, s = affinity.shape
        found = (nn.sigmoid(affinity).reshape(n, h * w, s) @ regions).reshape(x.shape)
        return project(nn.relu(project(found, "residual") + x), "fusion")


SPECS = {
    "apcnet": ContextSpec(
        make_pooled(lambda s: APCNet(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="adaptive pyramid context (He et al. 2019)",
    ),
}
