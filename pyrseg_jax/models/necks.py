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
from pyrseg_jax.models.token_layers import LAYER_NORM_EPSILON, dense, layer_norm
from pyrseg_jax.models.xla_cpu import gelu

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
        size = stages[0].shape[1], stages[0].shape[2]
        parts = [self._project(stage, i, size, train) for i, stage in enumerate(stages, 1)]
        return features._replace(stages=stages, final=jnp.concatenate(parts, axis=-1))

    def _project(
        self, stage: Float[Array, "n _ _ _"], index: int, size: tuple[int, int], train: bool
    ) -> Float[Array, "n h w d"]:
        x = ConvNormAct(self.width, dtype=self.dtype, name=f"project_{index}")(stage, train)
        return x if x.shape[1:3] == size else resize(x, size, "half_pixel")


class Enlarge(nn.Module):
    """Double the sides of a map: (N, h, w, C) → (N, 2h, 2w, width).

    Each position becomes a square of 2 × 2 positions, each with a dense layer of its own and without a bias. That is a transposed
    convolution with a kernel of 2 × 2 and stride 2, as one matrix product.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n 2*h 2*w {self.width}"]:
        n, h, w, _ = x.shape
        x = dense(4 * self.width, self.dtype, "squares", use_bias=False)(x).reshape(n, h, w, 2, 2, self.width)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, self.width)


class RescaleDepths(nn.Module):
    """Bring four maps of one stride s, from four depths of a plain transformer, to the strides s/4, s/2, s and 2s; then join them.

    The first map is enlarged twice, the second once, the third stays, and the fourth is reduced by a maximum over 2 × 2 positions.
    Each enlargement halves the channels: C/4, C/2, C and C.

    Attributes:
      has_final: whether the final map is read; see `MergeStages`, which makes it.
      dtype: number format of the computation.

    Source: mmsegmentation's `Feature2Pyramid`, with which BEiT and MAE are trained for segmentation: four depths, and the
      operations above. ViTDet (Li et al. 2022): fewer channels of the fine maps, and layer normalization between two enlargements.
    Chosen: four depths instead of ViTDet's simple pyramid on the last map alone. ViTDet trains the backbone together with the
      pyramid, which lets the last map keep what the fine levels need. Our backbones may also stay frozen, and there, earlier depths
      are the only source of what the last one left out.
    Differs: enlargements have no bias, as a normalization follows each.
    """

    has_final: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, train: bool) -> Features:
        """Return the four stages, fine → coarse, and the final map with the finest one's stride."""
        finest, fine, same, coarse = features.stages
        width = same.shape[-1]
        finest = Enlarge(width // 2, self.dtype, name="enlarge_1a")(finest)
        finest = gelu(layer_norm(self.dtype, "between_1")(finest))
        finest = Enlarge(width // 4, self.dtype, name="enlarge_1b")(finest)
        fine = Enlarge(width // 2, self.dtype, name="enlarge_2")(fine)
        coarse = nn.max_pool(coarse, (2, 2), (2, 2))
        merge = MergeStages(self.has_final, dtype=self.dtype, name="merge")
        return merge(features._replace(stages=(finest, fine, same, coarse)), train)
