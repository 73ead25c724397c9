"""DeepLabV3+ (Chen et al. 2018): separable convolutions of several dilations and a decoder to stride 4, as in mmsegmentation."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, enlarge, make_pooled
from pyrseg_jax.models.layers import ConvNormAct, drop_channels

# Distance in pixels between the taps of the three dilated convolutions: rates 12, 24 and 36 at stride 8.
REACHES = (96, 192, 288)
FIRST_STRIDE = 4  # of the stage that the decoder reads
DETAIL_WIDTH = 48  # channels that this stage is reduced to


class DeepLabV3Plus(nn.Module):
    """Join the map with its average and with convolutions of three dilations, enlarge it to stride 4, and refine it there.

    Attributes:
      width: channels inside and of the output (N, H/4, W/4, width).
      resize: convention for the enlargement.

    Source: Chen et al. 2018 and mmsegmentation's DeepLabV3+ (width 512, a 3×3 convolution after the join, all 3×3 convolutions but
      that one separable). The rates are 12, 24, 36 at stride 8 and 6, 12, 18 at stride 16.
    Chosen: the same distances in pixels at the other strides, so 24, 48, 72 on an HRNet's final map of stride 4. There, the decoder
      reads the finest branch.
    """

    width: int
    resize: str = "half_pixel"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n _ _ {self.width}"]:
        x, (detail,) = features.final, features.stages
        mean = ConvNormAct(self.width, dtype=self.dtype, name="pool")(x.mean((1, 2), keepdims=True), train)
        maps = [jnp.broadcast_to(mean, (*x.shape[:3], self.width))]
        maps.append(ConvNormAct(self.width, dtype=self.dtype, name="rate_0")(x, train))
        # The maps' sides are in a ratio of 1, 2, 4 or 8, or less where odd sides were rounded up on the way.
        halvings = max((-(-fine // side) - 1).bit_length() for fine, side in zip(detail.shape[1:3], x.shape[1:3]))
        stride = FIRST_STRIDE << halvings
        for i, reach in enumerate(REACHES, 1):
            maps.append(SeparableConv(self.width, max(reach // stride, 1), self.dtype, name=f"rate_{i}")(x, train))
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="join")(jnp.concatenate(maps, axis=-1), train)
        detail = ConvNormAct(DETAIL_WIDTH, dtype=self.dtype, name="detail")(detail, train)
        x = jnp.concatenate((enlarge(x, detail, self.resize), detail), axis=-1)
        for i in (1, 2):
            x = SeparableConv(self.width, dtype=self.dtype, name=f"refine_{i}")(x, train)
        return drop_channels(x, 0.1, train)


class SeparableConv(nn.Module):
    """A 3×3 convolution of each channel by itself, then a 1×1 convolution over the channels, each with normalization and ReLU.

    Attributes:
      features: channels of the output.
      dilation: positions between the taps of the first convolution.

    Source: Chollet 2017; Chen et al. 2018.
    """

    features: int
    dilation: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w {self.features}"]:
        width = x.shape[-1]
        each = ConvNormAct(width, 3, dilation=self.dilation, groups=width, dtype=self.dtype, name="depthwise")
        return ConvNormAct(self.features, dtype=self.dtype, name="pointwise")(each(x, train), train)


SPECS = {
    "deeplabv3plus": ContextSpec(
        make_pooled(lambda s: DeepLabV3Plus(s.width, s.resize, s.dtype)),
        reads=(0,),
        stride=4,
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="dilated separable convolutions and a decoder (Chen et al. 2018, as in mmsegmentation)",
    ),
}
