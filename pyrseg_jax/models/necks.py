"""Necks: from what a backbone returns to the four stages and the final map that heads read.

Backbones whose stages have strides 4, 8, 16 and 32, like most networks for classification, have no fine map that knows about the
whole image. A neck makes one. Its layers are new in every training: no published file has them.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.layers import ConvNormAct
from pyrseg_jax.models.resample import resize
from pyrseg_jax.models.token_layers import LAYER_NORM_EPSILON, layer_norm

MERGE_WIDTH = 128  # channels of each stage in the final map


class MergeStages(nn.Module):
    """Join the stages of a backbone into a map of the finest stage's size.

    Attributes:
      has_final: whether the final map is read; if not, the stages are only normalized.
      is_normalized: whether the backbone's stages end with a normalization of their own.
      width: channels that each stage contributes to the final map.
      epsilon: added to the variance of these normalizations.
      dtype: number format of the computation.

    Chosen: as HRNetV2 joins its branches, with a 1×1 convolution before each enlargement, because the coarse stages of these
      backbones have many more channels than those of an HRNet. The layer normalization of each stage is that of MMSegmentation's
      Swin and ConvNeXt.
    """

    has_final: bool = True
    is_normalized: bool = False
    width: int = MERGE_WIDTH
    epsilon: float = LAYER_NORM_EPSILON
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, train: bool) -> Features:
        """Return the normalized stages, and the final map (N, H/s, W/s, width · number of stages) with the finest stage's s."""
        stages = features.stages
        if not self.is_normalized:
            stages = tuple(
                layer_norm(self.dtype, f"norm_{i}", self.epsilon)(stage) for i, stage in enumerate(stages, 1)
            )
        if not self.has_final:
            return features._replace(stages=stages, final=stages[-1])
        size = stages[0].shape[1:3]
        parts = [self._project(stage, i, size, train) for i, stage in enumerate(stages, 1)]
        return features._replace(stages=stages, final=jnp.concatenate(parts, axis=-1))

    def _project(
        self, stage: Float[Array, "n _ _ _"], index: int, size: tuple[int, int], train: bool
    ) -> Float[Array, "n h w d"]:
        x = ConvNormAct(self.width, dtype=self.dtype, name=f"project_{index}")(stage, train)
        return x if x.shape[1:3] == size else resize(x, size, "half_pixel")
