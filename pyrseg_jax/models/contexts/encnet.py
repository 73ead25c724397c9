"""EncNet, context encoding (Zhang et al. 2018), as published, on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.contract import ContextLoss, ContextMap, ContextSpec, Logits, make_pooled
from pyrseg_jax.models.contexts.encoding import NUM_CODES, EncodingModule, presence_loss
from pyrseg_jax.models.layers import ConvNormAct, drop_channels

PRESENCE_WEIGHT = 0.2  # of the semantic encoding loss, in PyTorch-Encoding and mmsegmentation


class EncNet(nn.Module):
    """Weight the channels of the map by an encoding of the whole image, which also predicts the classes in the image.

    Attributes:
      width: channels inside and of the output (N, h, w, width).
      num_classes: C.
      num_codes: number of codewords.

    Source: Zhang et al. 2018; the public code of PyTorch-Encoding and mmsegmentation, whose networks for ADE20K are equal but for
      the stem and the resize convention.
    Chosen: the module reads the final map alone. PyTorch-Encoding's networks for Pascal data also read the two stages before it.
    Chosen: dropout leaves out whole channels, as mmsegmentation's does.
    """

    width: int
    num_classes: int
    num_codes: int = NUM_CODES
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextMap:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="reduce")(features.final, train)
        found = EncodingModule(self.num_classes, self.num_codes, self.dtype, name="encoding")(x, train)
        return ContextMap(drop_channels(found.features, 0.1, train), outputs={"presence": found.presence})


SPECS = {
    "encnet": ContextSpec(
        make_pooled(lambda s: EncNet(s.width, s.num_classes, dtype=s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        losses={"presence": ContextLoss(PRESENCE_WEIGHT, presence_loss)},
        meaning="context encoding (Zhang et al. 2018)",
    ),
}
