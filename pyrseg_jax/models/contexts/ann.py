"""ANN, both asymmetric non-local blocks (Zhu et al. 2019), on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.anl import ANL
from pyrseg_jax.models.contexts.attention import attend
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, drop_channels, hidden_init, pyramid_sampling, zero_init

DROPOUT = 0.1


class ANN(nn.Module):
    """Fuse an earlier stage into the final map by attention to it, then apply `ANL`'s attention of the map to itself.

    Attributes:
      width: channels inside of the second block and of the output (N, h, w, width).
      key_width: channels of queries, keys and values in both blocks.

    Source: Zhu et al. 2019 (AFNB and APNB), with the sizes of mmsegmentation's ANNHead.
    Chosen: on HRNets, the branch of stride 16 takes the place of C4. Its keys and values are pooled to 110 tokens, so that its size
      does not matter.
    """

    width: int
    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        fused = AsymmetricFusion(self.key_width, self.dtype, name="fusion")(features.stages[0], features.final, train)
        fused = drop_channels(fused, DROPOUT, train)
        block = ANL(self.width, self.key_width, self.dtype, DROPOUT, name="self_attention")
        return block(features._replace(final=fused), None, train)


class AsymmetricFusion(nn.Module):
    """Every position of a map attends to 110 pooled positions of an earlier stage (AFNB). The output has the map's channels.

    Attributes:
      key_width: channels of queries, keys and values.

    Source: Zhu et al. 2019. The output projection starts at zero, and no ReLU follows the last layer.
    """

    key_width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, low: Float[Array, "n _ _ _"], high: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n h w c"]:
        queries = ConvNormAct(self.key_width, dtype=self.dtype, name="query")(high, train)
        keys = ConvNormAct(self.key_width, dtype=self.dtype, name="key")(low, train)
        values = biased_conv(self.key_width, kernel_init=hidden_init, dtype=self.dtype, name="value")(low)
        attended = attend(queries, pyramid_sampling(keys), pyramid_sampling(values))
        width = high.shape[-1]
        context = biased_conv(width, kernel_init=zero_init, dtype=self.dtype, name="out")(attended)
        joined = jnp.concatenate([context, high], axis=-1)
        return ConvNormAct(width, is_active=False, dtype=self.dtype, name="merge")(joined, train)


SPECS = {
    "ann": ContextSpec(
        make_pooled(lambda s: ANN(s.width, s.key_width, s.dtype)),
        reads=(2,),
        has_auxiliary=True,
        is_projected=False,
        meaning="asymmetric non-local attention with the fusion of an earlier stage (Zhu et al. 2019)",
    ),
}
