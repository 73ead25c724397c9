"""UperNet (Xiao et al. 2018): pyramid pooling on the last stage, and a feature pyramid over all stages, as published."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, enlarge, make_pooled
from pyrseg_jax.models.contexts.merge import merge
from pyrseg_jax.models.contexts.pyramid_pooling import pool_pyramid
from pyrseg_jax.models.layers import ConvNormAct


class UperNet(nn.Module):
    """Decode the four stages of a backbone to stride 4.

    The last stage goes through pyramid pooling. From there down, each stage adds the enlarged map of the stage above. All four maps
    are then joined at the size of the first stage.

    Attributes:
      width: channels inside and of the output (N, H/4, W/4, width).
      pool_width: channels of each pooled map.
      resize: convention for all enlargements.
      is_enlarged_first: whether pooled maps are enlarged before their convolution.
      dropout: share of the output's channels that training leaves out.

    Source: Xiao et al. 2018. The original release (CSAIL) has widths of 256 and 512, enlarges pooled maps first and has no dropout;
      mmsegmentation has 512, 512, enlarges them last and has a dropout of 0.1. Both put it on ResNets of output stride 32.
    Chosen: on an HRNet, its four branches stand in for the stages.
    """

    width: int
    pool_width: int
    resize: str = "half_pixel"
    is_enlarged_first: bool = False
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n _ _ {self.width}"]:
        *earlier, last = features.stages
        pooled = pool_pyramid(
            last, self.pool_width, self.resize, is_enlarged_first=self.is_enlarged_first, dtype=self.dtype, train=train
        )
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="top")(jnp.concatenate((last, *pooled), axis=-1), train)
        maps = [x]
        for level in reversed(range(len(earlier))):
            lateral = ConvNormAct(self.width, dtype=self.dtype, name=f"lateral_{level + 2}")(earlier[level], train)
            x = lateral + enlarge(x, lateral, self.resize)
            maps.append(ConvNormAct(self.width, 3, dtype=self.dtype, name=f"smooth_{level + 2}")(x, train))
        maps = tuple(enlarge(y, maps[-1], self.resize) for y in reversed(maps))
        return merge(maps, self.width, kernel=3, dropout=self.dropout, dtype=self.dtype, train=train)


SPECS = {
    "upernet": ContextSpec(
        make_pooled(lambda s: UperNet(s.width // 2, s.width, s.resize, is_enlarged_first=True, dtype=s.dtype)),
        reads=(0, 1, 2, 3),
        stride=4,
        is_projected=False,
        has_resize=True,
        meaning="pyramid pooling and a decoder of half the width (Xiao et al. 2018)",
    ),
    "upernet_512": ContextSpec(
        make_pooled(lambda s: UperNet(s.width, s.width, s.resize, dropout=0.1, dtype=s.dtype)),
        reads=(0, 1, 2, 3),
        stride=4,
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="pyramid pooling and a decoder of the full width (Xiao et al. 2018, as in mmsegmentation)",
    ),
}
