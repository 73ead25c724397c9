"""Read plain masks with a list of their classes: by the colors that the list gives, or by the numbers that its lines count."""

from collections.abc import Sequence

import numpy as np

from pyrseg_jax.importing.annotations import IGNORED, Annotations, Notes, Picture
from pyrseg_jax.importing.class_list import ClassList, Color
from pyrseg_jax.importing.mask_images import NO_MEANING, Mask, one_channel
from pyrseg_jax.importing.mask_kinds import VOID_VALUE, read_some
from pyrseg_jax.importing.mask_painting import color_painter, mask_painter
from pyrseg_jax.importing.mask_pairs import pair_masks, photograph_or_error
from pyrseg_jax.importing.source_tree import SourceTree


def read_by_colors(tree: SourceTree, masks: Sequence[str], listed: ClassList, is_users: bool) -> Annotations:
    """Read masks by the colors of a list; where they are numbers without a palette, 255 is void as in `read_by_numbers`.

    Args:
      tree: the files.
      masks: paths of the masks.
      listed: the list, which has colors.
      is_users: whether the user gave the list, so that its order is the order of the classes.
    """
    assert listed.colors is not None
    values: dict[Color, int] = {color: value for value, color in enumerate(listed.colors, 1)}
    where = str(listed.path)
    some, void_meaning = read_some(tree, masks), ""
    if all(mask.values is not None for mask in some):
        where += " (leave its colors out if its lines count the numbers in the masks)"
    if all(mask.colors is None for mask in some) and (VOID_VALUE,) * 3 not in values:
        values[VOID_VALUE, VOID_VALUE, VOID_VALUE] = IGNORED
        void_meaning = f"the value {VOID_VALUE}"
    notes, pictures = Notes(), []
    for pair in pair_masks(tree, masks, notes):
        image = photograph_or_error(tree, pair)
        paint = color_painter(tree, pair.mask, values, where)
        pictures.append(Picture(pair.image or pair.mask, image, pair.split, paint))
    return Annotations(listed.names, tuple(pictures), notes, void_meaning=void_meaning, has_own_order=is_users)


def read_by_numbers(tree: SourceTree, masks: Sequence[str], listed: ClassList) -> Annotations:
    """Read masks by the numbers that the lines of a list count; 255 is void."""
    stop = listed.first + len(listed.names)
    table = np.full(max(256, stop), NO_MEANING, np.uint16)
    table[VOID_VALUE] = IGNORED
    table[listed.first : stop] = np.arange(1, len(listed.names) + 1)
    notes, pictures = Notes(), []
    for pair in pair_masks(tree, masks, notes):
        image = photograph_or_error(tree, pair)
        paint = mask_painter(tree, pair.mask, table, notes=notes)
        pictures.append(Picture(pair.image or pair.mask, image, pair.split, paint))
    return Annotations(listed.names, tuple(pictures), notes, void_meaning="the value 255", has_own_order=True)


def hold_numbers(masks: Sequence[Mask]) -> bool:
    """Tell whether masks hold one number per pixel, perhaps in three equal channels or with a palette."""
    return all(
        mask.values is not None or (mask.colors is not None and one_channel(mask.colors) is not None) for mask in masks
    )
