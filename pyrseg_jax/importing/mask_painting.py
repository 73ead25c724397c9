"""Paint class maps from mask files, for the formats that store one mask for each picture."""

import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt16

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import Notes, Paint
from pyrseg_jax.importing.class_list import Color
from pyrseg_jax.importing.color_maps import colors_to_class_map
from pyrseg_jax.importing.mask_images import EQUAL_CHANNELS, Mask, one_channel, read_mask, to_class_map
from pyrseg_jax.importing.source_tree import SourceTree


def mask_painter(
    tree: SourceTree, name: str, table: UInt16[np.ndarray, " n"], divisor: int = 0, notes: Notes | None = None
) -> Paint:
    """Return a `paint` that looks up the numbers of a mask.

    Args:
      tree: the files.
      name: the mask.
      table: value of the mask → value in class maps; see `mask_images.to_class_map`.
      divisor: values of at least `divisor` are divided by it first, as where class and instance share a number; 0 for none.
      notes: where masks with three equal channels are counted, which are read as one; None refuses such masks.
    """
    return functools.partial(_paint_values, tree, name, table, divisor, notes)


def _paint_values(
    tree: SourceTree, name: str, table: np.ndarray, divisor: int, notes: Notes | None, height: int, width: int
) -> np.ndarray:
    place = tree.place(name)
    mask = read_mask(tree.read(name), place)
    values = mask.values
    if values is None and notes is not None and mask.colors is not None:
        values = one_channel(mask.colors)
        if values is not None:
            notes.remark(EQUAL_CHANNELS, place)
    if values is None:
        raise UserError(f"{place} has colors: expected one number per pixel, the value of its class")
    if divisor:
        values = values.astype(np.int64)
        values = np.where(values >= divisor, values // divisor, values)
    return to_class_map(values, table, place)


def color_painter(tree: SourceTree, name: str, values: Mapping[Color, int], names: str) -> Paint:
    """Return a `paint` that looks up the colors of a mask, or of its palette; arguments as `colors_to_class_map`."""
    return functools.partial(_paint_colors, tree, name, values, names)


def _paint_colors(
    tree: SourceTree, name: str, values: Mapping[Color, int], names: str, height: int, width: int
) -> np.ndarray:
    place = tree.place(name)
    return colors_to_class_map(read_colors(tree, name), values, names, place)


def read_colors(tree: SourceTree, name: str) -> np.ndarray:
    """Return the colors of a mask (H, W, 3); numbers without a palette become grays.

    Raises:
      UserError: naming the file, if it cannot be decoded, or holds numbers above 255.
    """
    return colors_of(read_mask(tree.read(name), tree.place(name)), tree.place(name))


def colors_of(mask: Mask, place: str) -> np.ndarray:
    """Return the colors of a decoded mask as `read_colors` does, given the file's place for messages."""
    if mask.colors is not None:
        return mask.colors
    assert mask.values is not None
    if mask.values.max(initial=0) > 255 or mask.values.min(initial=0) < 0:
        raise UserError(f"{place} holds numbers up to {mask.values.max()}: expected the colors of classes")
    return np.repeat(mask.values.astype(np.uint8)[..., None], 3, axis=2)
