"""Ground truth of both pyramids from a label map (Sec. 3.1, "Pyramidal ground truth")."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Int32, Integer, UInt8

from pyrseg_jax.conventions import VOID
from pyrseg_jax.pyramid import levels
from pyrseg_jax.pyramid.levels import Array

VOID_RULES = ("agree", "mixed", "ignore")


class Targets(NamedTuple):
    """What each level shall learn, coarse → fine; 255 is don't care.

    semantic: L maps (N, H/s, W/s) int32, a class or 255.
    unity: L-1 maps (N, H/s, W/s) int32, 1 for a unit-cell, 0 for a mixed-cell, or 255. The finest level has none.
    """

    semantic: tuple[Int32[Array, "n _ _"], ...]
    unity: tuple[Int32[Array, "n _ _"], ...]


class _Content(NamedTuple):
    """What a grid of cells holds: enough to tell unit from mixed, and to be merged into the next coarser grid."""

    lowest: Integer[Array, "n h w"]  # smallest class among the labelled pixels; the dtype's maximum if there is none
    highest: Integer[Array, "n h w"]  # largest class among them; -1 if there is none
    has_void: Bool[Array, "n h w"]

    def merge(self, factor: int) -> "_Content":
        if factor == 1:
            return self
        return _Content(
            levels.to_blocks(self.lowest, factor).min((2, 4)),
            levels.to_blocks(self.highest, factor).max((2, 4)),
            levels.to_blocks(self.has_void, factor).any((2, 4)),
        )


def build_targets(
    label_map: UInt8[Array, "n h w"] | Int32[Array, "n h w"],
    strides: Sequence[int] = (32, 16, 8, 4),
    void: str = "agree",
) -> Targets:
    """Build the semantic and the unity pyramid of a batch of label maps.

    A cell is a unit-cell if its pixels share one class; then that class is its semantic target. A mixed-cell is don't
    care in the semantic pyramid. The finest level has no unity: its semantic target is the label map downsampled.
    Each level is computed from the next finer one, so that the pixels are read once.

    Args:
      label_map: (N, H, W) classes 0 … 254; 255 = void.
      strides: pixels per cell side, coarse → fine, each twice the next.
      void: what void pixels do to a cell that holds labelled ones of a single class: `"agree"` void agrees with every
        class, so it is a unit-cell; `"mixed"` void counts as one more class, so it is mixed; `"ignore"` it is don't care
        in both pyramids. A cell without a labelled pixel is don't care under each rule.

    Raises:
      ValueError: if H or W is not a multiple of the coarsest stride, or `strides` or `void` is not one of the above.

    Source: Sec. 3.1.
    Chosen: the paper leaves the treatment of void to its supplement; `"agree"` is ours, the others are for comparison. The
      finest level takes the pixel at (s_L // 2, s_L // 2) of each cell, the one nearest to its centre.
    """
    strides = levels.check_strides(strides)
    if void not in VOID_RULES:
        raise ValueError(f"void={void!r}: expected one of {', '.join(map(repr, VOID_RULES))}")
    if label_map.ndim != 3:
        raise ValueError(f"label_map has shape {label_map.shape}: expected a batch of maps, (N, H, W)")
    levels.check_divisible(*label_map.shape[1:], strides)

    finest = strides[-1]
    semantic = [label_map[:, finest // 2 :: finest, finest // 2 :: finest].astype(jnp.int32)]
    unity = []
    content = _content_of_pixels(label_map).merge(finest)
    for _ in strides[:-1]:
        content = content.merge(2)
        level_semantic, level_unity = _targets_of(content, void)
        semantic.insert(0, level_semantic)
        unity.insert(0, level_unity)
    return Targets(tuple(semantic), tuple(unity))


def _content_of_pixels(label_map: Integer[Array, "n h w"]) -> _Content:
    # 16 bits hold a uint8 label and the -1 that marks "none": half the traffic of int32 in the largest of the arrays.
    dtype = jnp.int16 if label_map.dtype == jnp.uint8 else jnp.int32
    is_void = label_map == VOID
    classes = label_map.astype(dtype)
    return _Content(jnp.where(is_void, jnp.iinfo(dtype).max, classes), jnp.where(is_void, -1, classes), is_void)


def _targets_of(content: _Content, void: str) -> tuple[Int32[Array, "n h w"], Int32[Array, "n h w"]]:
    is_empty = content.highest < 0
    is_one_class = content.lowest == content.highest
    is_unit, is_unknown = is_one_class, is_empty
    if void != "agree":
        is_unit = is_one_class & ~content.has_void
    if void == "ignore":
        is_unknown = is_empty | (is_one_class & content.has_void)
    semantic = jnp.where(is_unit, content.lowest, levels.DONT_CARE).astype(jnp.int32)
    unity = jnp.where(is_unknown, levels.DONT_CARE, is_unit.astype(jnp.int32))
    return semantic, unity
