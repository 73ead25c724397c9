"""ConvNeXt (Liu et al., CVPR 2022) and ConvNeXt V2 (Woo et al., CVPR 2023) as feature extractors for segmentation."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import AuxiliaryHead, BackboneSpec, Features
from pyrseg_jax.models.blocks import apply_each_block
from pyrseg_jax.models.layers import biased_conv
from pyrseg_jax.models.necks import MergeStages
from pyrseg_jax.models.token_layers import (
    DepthwiseConv,
    GlobalResponseNorm,
    LayerScale,
    add_branch,
    dense,
    draw_factors,
    drop_path_rates,
    layer_norm,
    token_init,
)
from pyrseg_jax.models.weights.convnext_layout import make_importers
from pyrseg_jax.models.xla_cpu import gelu

OUTPUT_STRIDE = 4
# As in the UperNets on ConvNeXt of the official release and of mmsegmentation.
AUXILIARY = AuxiliaryHead(stage=2, kernel=3, width=256, dropout=0.1)
KERNEL = 7  # side of the depthwise kernels
EXPANSION = 4  # channels inside of a block, as a multiple of those outside
# Blocks of the third stage that share a number in `depth_of`.
BLOCKS_PER_LAYER = 3


class Block(nn.Module):
    """A residual block: a depthwise 7×7 convolution, then two dense layers at each position; keeps the shape of its input.

    Attributes:
      is_v2: whether a global response normalization follows the activation, as in V2; in V1, a layer scale ends the block.
      dtype: number format of the computation.

    Source: Liu et al. 2022, Fig. 4; for V2, Woo et al. 2023, Fig. 5.
    """

    is_v2: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, factors: Float[Array, "1 n"] | None = None
    ) -> Float[Array, "n h w c"]:
        """Return the block's map; `factors` are those of drop path, see `token_layers.draw_factors`."""
        width = x.shape[-1]
        y = DepthwiseConv(KERNEL, token_init, dtype=self.dtype, name="depthwise")(x)
        y = layer_norm(self.dtype, "norm")(y)
        y = gelu(dense(EXPANSION * width, self.dtype, "fc1")(y))
        if self.is_v2:
            y = GlobalResponseNorm(name="grn")(y)
        y = dense(width, self.dtype, "fc2")(y)
        if not self.is_v2:
            y = LayerScale(name="layer_scale")(y)
        return add_branch(x, y, None if factors is None else factors[0])


class ConvNeXt(nn.Module):
    """A ConvNeXt as a feature extractor: images (N, H, W, 3) → `Features`.

    The stages are C2 … C5 with strides 4, 8, 16 and 32: what timm returns with `features_only`, and transformers as
    `hidden_states[1:]`, without a normalization; the neck normalizes them. The final map is C5. Where a side is not a multiple of
    the stride, the last pixels are left out, as the publishers' convolutions leave them out.

    Attributes:
      num_blocks: blocks of each of the four stages.
      widths: channels of each stage.
      is_v2: whether the blocks are those of ConvNeXt V2.
      drop_path: rate of drop path at the last block; it grows from 0 at the first, in equal steps.
      dtype: number format of the computation; parameters are always float32.
      remat: the activations that the backward pass recomputes, see `blocks.REMATS`.
    """

    num_blocks: Sequence[int] = (3, 3, 9, 3)
    widths: Sequence[int] = (96, 192, 384, 768)
    is_v2: bool = False
    drop_path: float = 0.4
    dtype: DTypeLike = jnp.float32
    remat: str = "off"

    def __post_init__(self):
        """Raise ValueError, naming the attribute, for a rate that does not exist."""
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path}: expected a rate from 0 to less than 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Float[Array, "n h w _"], train: bool = False) -> Features:
        rates = drop_path_rates(self.drop_path, sum(self.num_blocks))
        factors = draw_factors(self, rates, images.shape[0], train)
        x, rows, first = images.astype(self.dtype), [], 0
        for stage, (width, count) in enumerate(zip(self.widths, self.num_blocks, strict=True), 1):
            x = self._reduce(x, stage, width)
            names = [f"stage{stage}_block_{k}" for k in range(count)]
            make = functools.partial(Block, self.is_v2, self.dtype)
            row = apply_each_block(self, make, names, x, train, self.remat, each=factors[first : first + count])
            rows.append(tuple(row))
            x, first = row[-1], first + count
        return Features(tuple(row[-1] for row in rows), x, blocks=tuple(rows))

    def _reduce(self, x: Float[Array, "n h w c"], stage: int, width: int) -> Float[Array, "n _ _ {width}"]:
        """Convolve cells of 4×4 pixels before the first stage, and of 2×2 positions before the others."""
        make = functools.partial(biased_conv, width, kernel_init=token_init, dtype=self.dtype)
        if stage == 1:
            return layer_norm(self.dtype, "stem_norm")(make(4, name="stem")(x))
        return make(2, name=f"downsample{stage}")(layer_norm(self.dtype, f"downsample{stage}_norm")(x))


_MODULE = re.compile(r"(stem|downsample(?P<next>\d)|stage(?P<stage>\d)_block_(?P<block>\d+))(_norm)?")


def depth_of(path: tuple[str, ...], num_blocks: Sequence[int]) -> int:
    """Return the number of the layer that a parameter belongs to, for learning rates that decay layer by layer.

    The stem is 0, the first two stages are 1 and 2. Then comes a number for every three blocks of the third stage, and one for the
    whole last stage. The convolution between two stages counts as the first layer of the later one.

    Args:
      path: of the parameter inside the module.
      num_blocks: blocks of each of the four stages.

    Source: the layer-wise decay of the official code for segmentation, and of mmsegmentation: 12 layers for S, B and L, 6 for T.
    """
    found = _MODULE.fullmatch(path[0])
    assert found, f"{path[0]} is a module of a ConvNeXt"
    stage = int(found["stage"] or found["next"] or 0)
    if stage < 3:
        return stage
    if stage == 3:
        return 3 + int(found["block"] or 0) // BLOCKS_PER_LAYER
    return 3 + -(-num_blocks[2] // BLOCKS_PER_LAYER)


_SIZES: dict[str, dict[str, Any]] = {
    "A": {"num_blocks": (2, 2, 6, 2), "widths": (40, 80, 160, 320)},
    "F": {"num_blocks": (2, 2, 6, 2), "widths": (48, 96, 192, 384)},
    "P": {"num_blocks": (2, 2, 6, 2), "widths": (64, 128, 256, 512)},
    "N": {"num_blocks": (2, 2, 8, 2), "widths": (80, 160, 320, 640)},
    "T": {"num_blocks": (3, 3, 9, 3), "widths": (96, 192, 384, 768)},
    "S": {"num_blocks": (3, 3, 27, 3), "widths": (96, 192, 384, 768)},
    "B": {"num_blocks": (3, 3, 27, 3), "widths": (128, 256, 512, 1024)},
    "L": {"num_blocks": (3, 3, 27, 3), "widths": (192, 384, 768, 1536)},
    "micro": {"num_blocks": (1, 2, 4, 1), "widths": (8, 16, 24, 32)},
}
# Rate of drop path by size. Source: T, S, B, L: the UperNets on ConvNeXt of the official release and of mmsegmentation. Chosen:
# the smaller ones, which were not published for segmentation, have the rate at which V2 was fine-tuned on ImageNet; V2's other
# sizes have that of V1.
_DROP_PATHS = {"A": 0.1, "F": 0.1, "P": 0.1, "N": 0.1, "T": 0.4, "S": 0.3, "B": 0.4, "L": 0.4, "micro": 0.1}
_NAMES: Mapping[tuple[bool, tuple[int, ...], tuple[int, ...]], str] = {
    (is_v2, sizes["num_blocks"], sizes["widths"]): f"ConvNeXt{' V2' * is_v2}-{size}"
    for size, sizes in _SIZES.items()
    for is_v2 in (False, True)
}
IMPORTERS = make_importers(_NAMES)


def _spec(size: str, is_v2: bool, meaning: str) -> BackboneSpec:
    sizes = _SIZES[size]
    return BackboneSpec(
        functools.partial(ConvNeXt, **sizes, is_v2=is_v2, drop_path=_DROP_PATHS[size]),
        output_stride=OUTPUT_STRIDE,
        auxiliary=AUXILIARY,
        first_stride=4,
        make_neck=MergeStages,
        depth_of=functools.partial(depth_of, num_blocks=sizes["num_blocks"]),
        importers=IMPORTERS,
        meaning=meaning,
    )


CONVNEXT: dict[str, BackboneSpec] = {
    "convnext_t": _spec("T", False, "ConvNeXt-T, the size of a ResNet-50"),
    "convnext_s": _spec("S", False, "ConvNeXt-S, of the widths of T with three times the blocks in the third stage"),
    "convnext_b": _spec("B", False, "ConvNeXt-B"),
    "convnext_l": _spec("L", False, "ConvNeXt-L"),
    "convnext_micro": _spec("micro", False, "every kind of a ConvNeXt's layers, 8 channels: for tests"),
    "convnextv2_a": _spec("A", True, "ConvNeXt V2-A (atto), the smallest"),
    "convnextv2_f": _spec("F", True, "ConvNeXt V2-F (femto)"),
    "convnextv2_p": _spec("P", True, "ConvNeXt V2-P (pico)"),
    "convnextv2_n": _spec("N", True, "ConvNeXt V2-N (nano)"),
    "convnextv2_t": _spec("T", True, "ConvNeXt V2-T"),
    "convnextv2_b": _spec("B", True, "ConvNeXt V2-B"),
    "convnextv2_l": _spec("L", True, "ConvNeXt V2-L"),
    "convnextv2_micro": _spec("micro", True, "every kind of a ConvNeXt V2's layers, 8 channels: for tests"),
}
