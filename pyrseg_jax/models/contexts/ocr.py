"""OCR, object-contextual representations (Yuan et al. 2020), as published, on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import AuxiliaryHead, Features
from pyrseg_jax.models.contexts.attention import attend
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, enlarge, make_pooled
from pyrseg_jax.models.contexts.merge import merge
from pyrseg_jax.models.layers import ConvNormAct


class OCR(nn.Module):
    """Object-contextual representations: every position attends to one vector per class.

    The vector of a class is a weighted mean of the features. Its weights are the softmax over positions of the auxiliary
    classifier's logits of that class.

    Attributes:
      width: channels inside and of the output (N, h, w, width).
      key_width: channels of queries, keys and values.
      resize: convention for resampling the auxiliary logits, where the classifier reads a stage of another size.

    Source: Yuan et al. 2020, HRNet + OCR.
    """

    width: int
    key_width: int
    resize: str = "half_pixel"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits, train: bool) -> Float[Array, "n h w {self.width}"]:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(features.final, train)
        # On ResNets, the auxiliary classifier reads an earlier stage, which may be finer or coarser.
        auxiliary = enlarge(auxiliary, x, self.resize)
        n, h, w, c = auxiliary.shape
        share = nn.softmax(auxiliary.astype(jnp.float32).reshape(n, h * w, c), axis=1).astype(x.dtype)
        regions = (share.swapaxes(1, 2) @ x.reshape(n, h * w, -1))[:, None]  # (N, 1, C, width)

        def project(y: Array, name: str, times: int) -> Array:
            for i in range(1, times + 1):
                y = ConvNormAct(self.key_width, dtype=self.dtype, name=f"{name}_{i}")(y, train)
            return y

        queries, keys = project(x, "query", 2), project(regions, "key", 2)[:, 0]
        attended = attend(queries, keys, project(regions, "value", 1)[:, 0])
        context = ConvNormAct(self.width, dtype=self.dtype, name="out")(attended, train)
        return merge((context, x), self.width, kernel=1, dropout=0.05, dtype=self.dtype, train=train)


def openseg_auxiliary(shape: AuxiliaryHead) -> AuxiliaryHead:
    """Return the sizes of the auxiliary classifier in openseg's release, instead of those that a backbone's spec has.

    It is a 3×3 convolution: of 512 channels on a stage of a ResNet, and of as many channels as the map on an HRNet.
    """
    return AuxiliaryHead(shape.stage, kernel=3) if shape.stage is None else AuxiliaryHead(shape.stage, 3, 512, 0.05)


SPECS = {
    "ocr": ContextSpec(
        make_pooled(lambda s: OCR(s.width, s.key_width, s.resize, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="object-contextual representations (Yuan et al. 2020)",
    ),
    "ocr_openseg": ContextSpec(
        make_pooled(lambda s: OCR(s.width, s.key_width, s.resize, s.dtype)),
        has_auxiliary=True,
        auxiliary=openseg_auxiliary,
        is_projected=False,
        has_resize=True,
        meaning="the same with the auxiliary classifier of openseg's release, a 3×3 convolution",
    ),
}
