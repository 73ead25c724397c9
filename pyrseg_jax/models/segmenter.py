"""The whole network: backbone, context module and the heads of both pyramids."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.hrnet import BACKBONES, OUTPUT_STRIDE
from pyrseg_jax.models.blocks import UNROLLED, Execution
from pyrseg_jax.models.contexts.baselines import BASELINES
from pyrseg_jax.models.contexts.coarse_to_fine import CONTEXTS, build_context
from pyrseg_jax.models.heads import SemanticHead, UnityHead
from pyrseg_jax.pyramid.levels import check_divisible, check_strides

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# What the network says of an image: a class per position of the finest level; while training, also one per cell of each
# coarser level; or both pyramids.
REPRESENTATIONS = ("per_pixel", "auxiliary", "pyramid")


class Pyramids(NamedTuple):
    """Both pyramids of logits, coarse → fine, in float32.

    semantic: L maps (N, H/s, W/s, C); the finest alone where a network predicts no pyramid.
    unity: L-1 maps (N, H/s, W/s); the finest level is always taken. None of them where a network predicts no pyramid.
    auxiliary: (N, H/s_L, W/s_L, C) logits of a classifier beside the context module, for training; None without one.
    """

    semantic: tuple[Float[Array, "n _ _ c"], ...]
    unity: tuple[Float[Array, "n _ _"], ...]
    auxiliary: Float[Array, "n h w c"] | None = None


class Segmenter(nn.Module):
    """Predict the semantic and the unity pyramid of a batch of images (Fig. 2), or a class per pixel in the same form.

    Attributes:
      backbone: (N, H, W, 3) → (N, H/4, W/4, D).
      context: features → one map per level; see `contexts`.
      semantic_head: one map per level → class logits per level.
      unity_head: features → unity logits per level but the finest; None without a pyramid.
      auxiliary_head: features → class logits at the finest level; None where the context module has none.
      representation: one of `REPRESENTATIONS`.
      strides: of the levels, coarse → fine; the last one is the backbone's.
    """

    backbone: nn.Module
    context: nn.Module
    semantic_head: nn.Module
    unity_head: nn.Module | None = None
    auxiliary_head: nn.Module | None = None
    representation: str = "pyramid"
    strides: Sequence[int] = (32, 16, 8, 4)

    def __call__(self, images: Float[Array, "n h w 3"], train: bool = False) -> Pyramids:
        """Return the logits of (N, H, W, 3) normalised images; H and W must be multiples of the coarsest stride."""
        check_divisible(*images.shape[1:3], self.strides)
        features = self.backbone(images, train)
        auxiliary = None
        if self.auxiliary_head is not None:
            (auxiliary,) = self.auxiliary_head((features,), train)
        levels = self.context(features, auxiliary, train)
        if self.representation == "per_pixel":
            levels = levels[-1:]
        semantic = self.semantic_head(levels, train)
        if self.representation == "auxiliary" and not train:
            semantic = semantic[-1:]
        unity = () if self.unity_head is None else self.unity_head(features, train)
        return Pyramids(semantic, unity, auxiliary)


def build_segmenter(
    num_classes: int,
    *,
    backbone: str = "hrnet_w48",
    context: str = "coarse_to_fine",
    representation: str = "pyramid",
    strides: Sequence[int] = (32, 16, 8, 4),
    semantic_width: int = 512,
    key_width: int = 256,
    unity_width: int = 128,
    resize: str = "half_pixel",
    dtype: str = "float32",
    execution: Execution = UNROLLED,
) -> Segmenter:
    """Put a segmenter together from names and widths.

    Args:
      num_classes: C.
      backbone: a key of `BACKBONES`.
      context: one of `CONTEXTS`. Those of Table 1's other methods come with their auxiliary classifier.
      representation: one of `REPRESENTATIONS`.
      strides: of the pyramid, coarse → fine.
      semantic_width: D_s, channels inside the context module and of its output.
      key_width: channels of queries and keys in its attention.
      unity_width: D_u, channels inside the unity head.
      resize: upsampling convention of the backbone, see `resample.resize`.
      dtype: of the computation, a key of `DTYPES`. Parameters, batch statistics, softmax and loss are float32 always.
      execution: of the backbone's rows of equal blocks.

    Raises:
      ValueError: naming the argument, if it is none of these, or if the finest stride is not the backbone's.

    Chosen: a published context module that predicts per pixel is followed by its classifier alone, as published; with
      levels to specialize, each has a projection of its own, as every other context has.
    """
    for argument, value, choices in (
        ("backbone", backbone, BACKBONES),
        ("context", context, CONTEXTS),
        ("representation", representation, REPRESENTATIONS),
        ("dtype", dtype, DTYPES),
    ):
        if value not in choices:
            raise ValueError(f"{argument}={value!r}: expected one of {', '.join(map(repr, choices))}")
    strides = check_strides(strides)
    if strides[-1] != OUTPUT_STRIDE:
        raise ValueError(f"strides={strides}: the finest must be the backbone's output stride, {OUTPUT_STRIDE}")
    kind, levels = DTYPES[dtype], len(strides)
    is_baseline = context in BASELINES
    is_projected = not (is_baseline and representation == "per_pixel")
    return Segmenter(
        backbone=BACKBONES[backbone](resize=resize, dtype=kind, execution=execution),
        context=build_context(context, levels, semantic_width, key_width, kind),
        semantic_head=SemanticHead(num_classes, levels, is_projected, dtype=kind),
        unity_head=UnityHead(levels, unity_width, dtype=kind) if representation == "pyramid" else None,
        auxiliary_head=SemanticHead(num_classes, 1, dtype=kind) if is_baseline else None,
        representation=representation,
        strides=strides,
    )
