"""ResNet-50 and ResNet-101 (He et al., CVPR 2016) as feature extractors for segmentation, with dilated last stages.

The module names mirror those of the published weights: `layer3_block_5/conv2` is `layer3.5.conv2` there.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import AuxiliaryHead, Cut, Features, Gate
from pyrseg_jax.models.blocks import apply_each_block
from pyrseg_jax.models.layers import Bottleneck, ConvNormAct, Mask

OUTPUT_STRIDES = (8, 16, 32)
OUTPUT_STRIDE = 8
# On C4, with the sizes that mmsegmentation, semseg and PyTorch-Encoding have in common.
AUXILIARY = AuxiliaryHead(stage=2, kernel=3, width=256, dropout=0.1)

# Channels of the stem's convolutions, as multiples of the network's width (64). The first convolution has stride 2.
_STEM_WIDTHS = {"v1": (1,), "v1c": (0.5, 0.5, 1), "deep": (1, 1, 2)}
STEMS = {
    "v1": "one 7×7 convolution, as in the original and in torchvision",
    "v1c": "three 3×3 convolutions of 32, 32 and 64 channels, as in mmsegmentation",
    "deep": "three 3×3 convolutions of 64, 64 and 128 channels, as in semseg, PyTorch-Encoding and CSAIL's code",
}
DILATION_RULES = {
    "contracted": "the first block of a dilated stage has half of the stage's dilation",
    "plain": "all blocks of a stage have the same dilation",
}
# Output stride → stride and dilation of each of the four stages.
_STAGES = {
    32: ((1, 1), (2, 1), (2, 1), (2, 1)),
    16: ((1, 1), (2, 1), (2, 1), (1, 2)),
    8: ((1, 1), (2, 1), (1, 2), (1, 4)),
}


# With a gate, cuts follow stage 2 and half of stage 3. At this output stride, all of them have the stride of C3.
GATED_STRIDE = 8


class StagePlan(NamedTuple):
    """Stride of a stage's first block, and the dilation of each block's 3×3 convolution."""

    stride: int
    dilations: tuple[int, ...]


def plan_stages(
    num_blocks: Sequence[int], output_stride: int, rule: str, multi_grid: Sequence[int] | None
) -> tuple[StagePlan, ...]:
    """Return the stride and the dilations of each stage.

    Args:
      num_blocks: number of blocks of each of the four stages.
      output_stride: stride of the last stage's map: 8, 16 or 32 pixels.
      rule: one of `DILATION_RULES`.
      multi_grid: dilation of each block of the last stage, instead of the rule's.

    Raises:
      ValueError: naming the argument, if its value is not one of these.

    Source: the public code: the dilations of mmsegmentation, PyTorch-Encoding and EMANet are contracted, those of semseg and CCNet
      plain; DANet has the multi-grid (4, 8, 16), EMANet and openseg have (2, 8, 16).
    """
    if output_stride not in _STAGES:
        raise ValueError(f"output_stride={output_stride}: expected one of {', '.join(map(str, OUTPUT_STRIDES))}")
    if rule not in DILATION_RULES:
        raise ValueError(f"dilation={rule!r}: expected one of {', '.join(map(repr, DILATION_RULES))}")
    plans = []
    for count, (stride, dilation) in zip(num_blocks, _STAGES[output_stride], strict=True):
        first = dilation // 2 if rule == "contracted" and dilation > 1 else dilation
        plans.append(StagePlan(stride, (first, *[dilation] * (count - 1))))
    if multi_grid is not None:
        if len(multi_grid) != num_blocks[-1] or min(multi_grid) < 1:
            raise ValueError(
                f"multi_grid={tuple(multi_grid)}: expected {num_blocks[-1]} dilations of at least 1, one for each block of the "
                "last stage"
            )
        plans[-1] = StagePlan(plans[-1].stride, tuple(multi_grid))
    return tuple(plans)


def _parts(stage: int, num_blocks: int) -> tuple[slice, ...]:
    """Return the parts of a stage between which a gate decides. After a part with an end, there is a cut."""
    if stage == 2:
        return (slice(0, num_blocks),)
    half = max(1, num_blocks // 2)
    return (slice(0, half), slice(half, None)) if stage == 3 and half < num_blocks else (slice(None),)


class ResNet(nn.Module):
    """A ResNet of bottleneck blocks as a feature extractor: images (N, H, W, 3) → `Features`.

    The stages are C2 … C5, the outputs of the four stages, with 4, 8, 16 and 32 · width channels. Their strides are 4, 8, 16 and
    32, but none is larger than the output stride. The final map is C5. The stem's map has width or, with the stem "deep", 2 · width
    channels.

    A gate cuts after stage 2 and after half of stage 3, see `contract.Cut`; the output stride is then 8.

    Stride and dilation are those of a block's 3×3 convolution, as in PyTorch's ResNets.

    Attributes:
      num_blocks: blocks of each of the four stages.
      stem: one of `STEMS`.
      output_stride: stride of C5, one of `OUTPUT_STRIDES`. Stages beyond it are dilated instead.
      dilation: one of `DILATION_RULES`. No weight depends on it, but published weights were trained with one of them and are worse
        with the other.
      multi_grid: dilation of each block of the last stage; None: by the rule.
      width: channels inside the blocks of the first stage.
      dtype: number format of the computation; parameters and batch statistics are always float32.
      remat: the activations that the backward pass recomputes, see `blocks.REMATS`.
    """

    num_blocks: Sequence[int] = (3, 4, 23, 3)
    stem: str = "v1c"
    output_stride: int = OUTPUT_STRIDE
    dilation: str = "contracted"
    multi_grid: Sequence[int] | None = None
    width: int = 64
    dtype: DTypeLike = jnp.float32
    remat: str = "off"

    def __post_init__(self):
        """Raise ValueError, naming the attribute, for a value that does not exist."""
        plan_stages(self.num_blocks, self.output_stride, self.dilation, self.multi_grid)
        if self.stem not in STEMS:
            raise ValueError(f"stem={self.stem!r}: expected one of {', '.join(map(repr, STEMS))}")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Float[Array, "n h w _"], train: bool = False, gate: Gate | None = None) -> Features:
        stem = self._stem(images.astype(self.dtype), train)
        # The maximum over 3×3 positions. The padding never wins: it is minus infinity.
        x = nn.max_pool(stem, (3, 3), (2, 2), padding=((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]  # declared as str
        rows: list[tuple[Array, ...]] = []
        cuts: list[Cut] = []
        plans = plan_stages(self.num_blocks, self.output_stride, self.dilation, self.multi_grid)
        for stage, plan in enumerate(plans, 1):
            row: list[Array] = []
            for part in _parts(stage, len(plan.dilations)) if gate is not None else (slice(None),):
                mask = cuts[-1].is_open if cuts else None
                row += self._blocks(stage, plan, part, x, train, mask)
                x = row[-1]
                if gate is not None and part.stop is not None:
                    cuts.append(gate(len(cuts) + 1, x, mask, train))
                    x = jnp.where(cuts[-1].is_open[..., None], x, 0)
            rows.append(tuple(row))
        return Features(tuple(row[-1] for row in rows), x, stem, tuple(rows), tuple(cuts))

    def _stem(self, x: Array, train: bool) -> Array:
        multiples = _STEM_WIDTHS[self.stem]
        kernel = 7 if len(multiples) == 1 else 3
        for i, multiple in enumerate(multiples, 1):
            layer = ConvNormAct(
                int(multiple * self.width), kernel, stride=2 if i == 1 else 1, dtype=self.dtype, name=f"stem{i}"
            )
            x = layer(x, train)
        return x

    def _blocks(self, stage: int, plan: StagePlan, part: slice, x: Array, train: bool, mask: Mask) -> list[Array]:
        """Return the map after each block of a part of a stage.

        Blocks after the first run in groups of equal dilation, so that each is traced once.
        """
        width = self.width << (stage - 1)
        names = [f"layer{stage}_block_{k}" for k in range(len(plan.dilations))]
        block = functools.partial(Bottleneck, width, dtype=self.dtype)
        row, blocks = [], list(zip(plan.dilations, names, strict=True))[part]
        if blocks[0][1] == names[0]:  # the first block stands alone: its input has another number of channels
            x = block(stride=plan.stride, dilation=plan.dilations[0], name=names[0])(x, train, mask)
            row, blocks = [x], blocks[1:]
        for dilation, group in itertools.groupby(blocks, key=lambda pair: pair[0]):
            make = functools.partial(block, dilation=dilation)
            row += apply_each_block(self, make, [name for _, name in group], x, train, self.remat, mask)
            x = row[-1]
        return row


resnet50 = functools.partial(ResNet, num_blocks=(3, 4, 6, 3))
resnet101 = functools.partial(ResNet, num_blocks=(3, 4, 23, 3))
# For tests: every kind of layer, 8 channels.
resnet_tiny = functools.partial(ResNet, num_blocks=(1, 2, 2, 3), width=8)
