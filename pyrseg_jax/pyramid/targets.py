"""Ground truth of both pyramids from a label map (Sec. 3.1, "Pyramidal ground truth")."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int32, Integer, UInt, UInt8

from pyrseg_jax.conventions import void_of
from pyrseg_jax.pyramid import levels
from pyrseg_jax.pyramid.levels import Array

# What happens to a cell with void pixels whose labeled pixels share one class; see `build_targets`.
VOID_RULES = {
    "agree": "void pixels agree with every class: the cell is a unit-cell of its labeled pixels' class",
    "mixed": "void counts as a class of its own: the cell is a mixed-cell",
    "ignore": "the cell is don't care: it does not contribute to the loss",
}
_WORDS = {2: jnp.uint16, 4: jnp.uint32}  # number of bytes → type that holds them


class Targets(NamedTuple):
    """The training targets of each level, coarse → fine; 255 means don't care.

    Attributes:
      semantic: L maps (N, H/s, W/s) int32: a class, or 255. Of label maps of uint16, they are uint16, and 65535 means don't care.
      unity: L-1 maps (N, H/s, W/s) int32: 1 for a unit-cell, 0 for a mixed-cell, or 255. The finest level has none.
    """

    semantic: tuple[Integer[Array, "n _ _"], ...]
    unity: tuple[Int32[Array, "n _ _"], ...]


class _Content(NamedTuple):
    """A summary of each cell in a grid: enough to tell unit-cells from mixed-cells and to summarize the next coarser grid.

    All values are bytes, or those of maps with more than 255 classes, because the largest of these arrays are as large as the
    label maps.
    """

    lowest: UInt[Array, "n h w"]  # smallest class among the labeled pixels; void if there are none
    above_highest: UInt[Array, "n h w"]  # largest class among them, plus 1; 0 if there are none
    has_void: UInt8[Array, "n h w"]  # 0 or 1

    def merge(self, factor: int) -> "_Content":
        return _Content(
            _merge(self.lowest, factor, jnp.minimum),
            _merge(self.above_highest, factor, jnp.maximum),
            _merge(self.has_void, factor, jnp.maximum),
        )


def build_targets(
    label_map: Integer[Array, "n h w"],
    strides: Sequence[int] = (32, 16, 8, 4),
    void: str = "agree",
) -> Targets:
    """Build the semantic and the unity pyramid of a batch of label maps.

    A cell is a unit-cell if all its pixels share one class, which is then its semantic target. A mixed-cell is don't care in
    the semantic pyramid. The finest level has no unity map; its semantic target is the downsampled label map. Each level is
    computed from the next finer one, so that the pixels are read only once.

    Args:
      label_map: (N, H, W) classes 0 … 254; 255 = void. A map of uint16 holds classes 0 … 65534, and 65535 = void.
      strides: pixels per side of a cell, coarse → fine, each twice the next.
      void: treatment of a cell with void pixels whose labeled pixels share one class. `"agree"`: void agrees with every class,
        so it is a unit-cell. `"mixed"`: void counts as a class of its own, so it is a mixed-cell. `"ignore"`: it is don't care
        in both pyramids. A cell without labeled pixels is don't care under every rule.

    Raises:
      ValueError: if H or W is not a multiple of the coarsest stride, or `strides` or `void` is invalid.

    Source: Sec. 3.1.
    Chosen: the paper leaves the treatment of void to its supplement; `"agree"` is our choice, and the others are for
      comparison. The finest level takes the pixel at (s_L // 2, s_L // 2) of each cell, the one nearest to its center.
    """
    strides = levels.check_strides(strides)
    if void not in VOID_RULES:
        raise ValueError(f"void={void!r}: expected one of {', '.join(map(repr, VOID_RULES))}")
    if label_map.ndim != 3:
        raise ValueError(f"label_map has shape {label_map.shape}: expected a batch of maps, (N, H, W)")
    _, height, width = label_map.shape
    levels.check_divisible(height, width, strides)

    finest = strides[-1]
    semantic = [levels.as_classes(label_map[:, finest // 2 :: finest, finest // 2 :: finest])]
    unity = []
    content = _content_of_pixels(label_map).merge(finest)
    for _ in strides[:-1]:
        content = content.merge(2)
        level_semantic, level_unity = _targets_of(content, void)
        semantic.insert(0, level_semantic)
        unity.insert(0, level_unity)
    return Targets(tuple(semantic), tuple(unity))


def _content_of_pixels(label_map: Integer[Array, "n h w"]) -> _Content:
    classes = label_map if label_map.dtype == jnp.uint16 else label_map.astype(jnp.uint8)
    # Void is the largest number of its type, and that + 1 is 0. So void never wins the minimum, nor void + 1 the maximum.
    return _Content(classes, classes + _one(classes), (classes == void_of(classes.dtype)).astype(jnp.uint8))


def _one(classes: UInt[Array, "n h w"]) -> UInt[Array, ""]:
    return jnp.ones((), classes.dtype)


def _merge(x: UInt[Array, "n h w"], factor: int, operation: Callable) -> UInt[Array, "n h//{factor} w//{factor}"]:
    """Reduce each factor × factor block.

    Rows are reduced first, because the CPU processes many bytes of whole rows at once. Neighboring bytes of a row cannot be
    reduced that way: they are read together as one word, which shifts then take apart.
    """
    if factor == 1:
        return x
    if factor > 4 and factor % 2 == 0:
        return _merge(_merge(x, 2, operation), factor // 2, operation)
    n, h, w = x.shape
    # Reshape instead of slicing with a step: if rows are split over devices, the rows of a block then stay on one device.
    rows = x.reshape(n, h // factor, factor, w)
    x = functools.reduce(operation, [rows[:, :, k] for k in range(factor)])
    if factor not in _WORDS or x.dtype != jnp.uint8:
        return functools.reduce(operation, [x[:, :, k::factor] for k in range(factor)])
    words = jax.lax.bitcast_convert_type(x.reshape(n, h // factor, w // factor, factor), _WORDS[factor])
    return functools.reduce(operation, [words >> 8 * k & 255 for k in range(factor)]).astype(jnp.uint8)


def _targets_of(content: _Content, void: str) -> tuple[Integer[Array, "n h w"], Int32[Array, "n h w"]]:
    is_empty = content.above_highest == 0
    is_one_class = content.lowest + _one(content.lowest) == content.above_highest
    is_pure = content.has_void == 0
    is_unit, is_unknown = is_one_class & ~is_empty, is_empty
    if void != "agree":
        is_unit &= is_pure
    if void == "ignore":
        is_unknown |= is_one_class & ~is_pure
    semantic = levels.as_classes(jnp.where(is_unit, content.lowest, void_of(content.lowest.dtype)))
    unity = jnp.where(is_unknown, levels.DONT_CARE, is_unit.astype(jnp.int32))
    return semantic, unity
