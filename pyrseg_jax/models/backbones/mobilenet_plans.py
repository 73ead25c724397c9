"""The sizes of MobileNetV3 (Howard et al., ICCV 2019)."""

import itertools
from typing import NamedTuple

SQUEEZE_RATIO = 4  # channels of a block to those inside its squeeze-and-excitation
DIVISOR = 8  # channels inside are rounded to a multiple of it


class BlockPlan(NamedTuple):
    """The sizes of a block: its depthwise kernel, the channels inside, those of the result, and what happens in between."""

    kernel: int
    expanded: int
    features: int
    has_squeeze: bool
    act: str
    stride: int = 1


class Plan(NamedTuple):
    """The sizes of a network: channels of its first and its last convolution, and its blocks in groups, as timm has them."""

    stem: int
    groups: tuple[tuple[BlockPlan, ...], ...]
    last: int

    @property
    def blocks(self) -> tuple[BlockPlan, ...]:
        """Return the blocks of all groups."""
        return tuple(itertools.chain.from_iterable(self.groups))

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the channels of each block's input."""
        return (self.stem, *(block.features for block in self.blocks[:-1]))


# Source: Table 1, MobileNetV3-Large.
LARGE = Plan(
    16,
    (
        (BlockPlan(3, 16, 16, False, "relu"),),
        (BlockPlan(3, 64, 24, False, "relu", 2), BlockPlan(3, 72, 24, False, "relu")),
        (BlockPlan(5, 72, 40, True, "relu", 2), *[BlockPlan(5, 120, 40, True, "relu")] * 2),
        (
            BlockPlan(3, 240, 80, False, "hard_swish", 2),
            BlockPlan(3, 200, 80, False, "hard_swish"),
            *[BlockPlan(3, 184, 80, False, "hard_swish")] * 2,
        ),
        (BlockPlan(3, 480, 112, True, "hard_swish"), BlockPlan(3, 672, 112, True, "hard_swish")),
        (BlockPlan(5, 672, 160, True, "hard_swish", 2), *[BlockPlan(5, 960, 160, True, "hard_swish")] * 2),
    ),
    960,
)
# Source: Table 2, MobileNetV3-Small.
SMALL = Plan(
    16,
    (
        (BlockPlan(3, 16, 16, True, "relu", 2),),
        (BlockPlan(3, 72, 24, False, "relu", 2), BlockPlan(3, 88, 24, False, "relu")),
        (BlockPlan(5, 96, 40, True, "hard_swish", 2), *[BlockPlan(5, 240, 40, True, "hard_swish")] * 2),
        (BlockPlan(5, 120, 48, True, "hard_swish"), BlockPlan(5, 144, 48, True, "hard_swish")),
        (BlockPlan(5, 288, 96, True, "hard_swish", 2), *[BlockPlan(5, 576, 96, True, "hard_swish")] * 2),
    ),
    576,
)
MICRO = Plan(
    8,
    (
        (BlockPlan(3, 8, 8, False, "relu"),),
        (BlockPlan(3, 16, 8, False, "relu", 2), BlockPlan(3, 24, 8, False, "relu")),
        (BlockPlan(5, 24, 16, True, "relu", 2), *[BlockPlan(5, 48, 16, True, "relu")] * 2),
        (BlockPlan(3, 32, 16, False, "hard_swish", 2),),
        (BlockPlan(3, 64, 24, True, "hard_swish"),),
        (BlockPlan(5, 48, 24, True, "hard_swish", 2),),
    ),
    144,
)


def squeezed(expanded: int) -> int:
    """Return the channels inside a squeeze-and-excitation: a quarter, rounded to a multiple of 8, and not below 90 % of it."""
    target = expanded // SQUEEZE_RATIO
    rounded = max(DIVISOR, (target + DIVISOR // 2) // DIVISOR * DIVISOR)
    return rounded + DIVISOR if rounded < 0.9 * target else rounded
