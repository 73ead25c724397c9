"""Read plain masks with a list of their classes: by the colors that the list gives, or by the numbers that its lines count."""

from collections.abc import Sequence

import numpy as np

from pyrseg_jax.importing.annotations import BACKGROUND, IGNORED, UNLABELED, VOID, Annotations, Notes, Picture
from pyrseg_jax.importing.class_list import ClassList, Color
from pyrseg_jax.importing.mask_images import NO_MEANING, Mask, one_channel
from pyrseg_jax.importing.mask_kinds import VOID_VALUE, read_some
from pyrseg_jax.importing.mask_painting import color_painter, colors_of, mask_painter
from pyrseg_jax.importing.mask_pairs import pair_masks, photograph_or_error
from pyrseg_jax.importing.source_tree import SourceTree

CAMVID_LIST, BLACK = "label_colors.txt", (0, 0, 0)
VOID_VALUE_16 = 2**16 - 1  # of masks with 16 bits
ADE20K_LIST = "objectInfo150.txt"  # of its SceneParsing benchmark, where 0 marks pixels of other classes


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
    has_background = _lacks_background(listed, some)
    if has_background:
        values[BLACK] = UNLABELED
        notes.remark(f"color {BLACK} that the list lacks, which was read as pixels without a label", str(listed.path))
        void_meaning = f"the color {BLACK}, which {listed.path.name} lacks"
    for pair in pair_masks(tree, masks, notes):
        image = photograph_or_error(tree, pair)
        paint = color_painter(tree, pair.mask, values, where)
        pictures.append(Picture(pair.image or pair.mask, image, pair.split, paint))
    unlabeled = BACKGROUND if has_background else VOID
    return Annotations(listed.names, tuple(pictures), notes, unlabeled, void_meaning, has_own_order=is_users)


def _lacks_background(listed: ClassList, masks: Sequence[Mask]) -> bool:
    """Tell whether this is CVAT's list of the CamVid format, which may leave out the background, which is black in the masks."""
    if listed.path.name != CAMVID_LIST or listed.colors is None or BLACK in listed.colors:
        return False
    return any((colors_of(mask, str(listed.path)) == 0).all(-1).any() for mask in masks)


def read_by_numbers(tree: SourceTree, masks: Sequence[str], listed: ClassList) -> Annotations:
    """Read masks by the numbers of a list's lines; 255 and 65535 are void unless they have names, and so is 0 in ADE20K."""
    stop = listed.first + len(listed.names)
    table = np.full(2**16, NO_MEANING, np.uint16)
    void = [0] if listed.path.name == ADE20K_LIST else []
    void += [value for value in (VOID_VALUE, VOID_VALUE_16) if not listed.first <= value < stop]
    table[void] = IGNORED
    void_meaning = f"the values {', '.join(map(str, void))}"
    table[listed.first : stop] = np.arange(1, len(listed.names) + 1)
    notes, pictures = Notes(), []
    for pair in pair_masks(tree, masks, notes):
        image = photograph_or_error(tree, pair)
        paint = mask_painter(tree, pair.mask, table, notes=notes)
        pictures.append(Picture(pair.image or pair.mask, image, pair.split, paint))
    return Annotations(
        listed.names,
        tuple(pictures),
        notes,
        void_meaning=void_meaning,
        has_own_order=True,
    )


def hold_numbers(masks: Sequence[Mask]) -> bool:
    """Tell whether masks hold one number per pixel, perhaps in three equal channels or with a palette."""
    return all(
        mask.values is not None or (mask.colors is not None and one_channel(mask.colors) is not None) for mask in masks
    )
