"""DANet, dual attention (Fu et al. 2019), on the features of any backbone."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.attention import attend_to_all, project
from pyrseg_jax.models.contexts.contract import ContextLoss, ContextMap, ContextSpec, Logits, Outputs, make_pooled
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, drop_channels, zero_init
from pyrseg_jax.models.supervision import cross_entropy
from pyrseg_jax.pyramid import levels

DROPOUT = 0.1


class DANet(nn.Module):
    """Attention between all positions beside attention between all channels; the sum of both is the feature map.

    In training, a classifier learns from either branch alone, too. The outputs `position` and `channel` are their logits.

    Attributes:
      num_classes: C.
      width: channels inside and of the feature map (N, h, w, width).

    Source: Fu et al. 2019, its release and mmsegmentation's DAHead.
    """

    num_classes: int
    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextMap:
        attentions: dict[str, nn.Module] = {
            "position": PositionAttention(self.width, max(self.width // 8, 1), self.dtype, name="position"),
            "channel": ChannelAttention(self.dtype, name="channel"),
        }
        total, outputs = 0, {}
        for name, attention in attentions.items():
            x = ConvNormAct(self.width, 3, dtype=self.dtype, name=f"{name}_reduce")(features.final, train)
            x = ConvNormAct(self.width, 3, dtype=self.dtype, name=f"{name}_smooth")(attention(x), train)
            total += x
            logits = biased_conv(self.num_classes, dtype=self.dtype, name=f"{name}_classify")(
                drop_channels(x, DROPOUT, train)
            )
            outputs[name] = logits.astype(jnp.float32)
        return ContextMap(drop_channels(jnp.asarray(total), DROPOUT, train), outputs=outputs)


class PositionAttention(nn.Module):
    """Attend from every position to all positions by unscaled scores; γ, which starts at 0, multiplies what is added.

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
        gamma = self.param("gamma", zero_init, (1,), jnp.float32)
        return x + gamma.astype(self.dtype) * attend_to_all(query, key, value)


class ChannelAttention(nn.Module):
    """Attend from every channel to all channels, most to those that are least similar; γ multiplies what is added, from 0 on.

    The similarity of two channels is the sum of their products over all positions. It grows with the map, so it and its softmax are
    computed in float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, h, w, c = x.shape
        rows = x.reshape(n, h * w, c)
        similarity = jnp.matmul(rows.swapaxes(1, 2), rows, preferred_element_type=jnp.float32)
        # The release subtracts the similarities from the largest of a row, which a softmax leaves without effect.
        weights = nn.softmax(-similarity, axis=-1).astype(x.dtype)
        gamma = self.param("gamma", zero_init, (1,), jnp.float32)
        return x + gamma.astype(self.dtype) * (rows @ weights.swapaxes(1, 2)).reshape(x.shape)


def _loss_of(
    name: str, outputs: Outputs, labels: Integer[levels.Array, "n H W"], supervision: str
) -> Float[levels.Array, ""]:
    return cross_entropy(outputs[name], labels, supervision)


SPECS = {
    "danet": ContextSpec(
        make_pooled(lambda s: DANet(s.num_classes, s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        # Each branch has the weight of the main loss.
        losses={name: ContextLoss(1.0, functools.partial(_loss_of, name)) for name in ("position", "channel")},
        meaning="attention between positions and between channels (Fu et al. 2019)",
    ),
}
