"""Read label maps with one number per pixel, 0, 1, 2, …, as the lines of a list of classes count them; 255 is void.

A name such as `void` or `ignore` in the list marks a number without a class.
"""

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import IGNORED, Annotations, Notes, Options, Picture
from pyrseg_jax.importing.class_files import find_name_list
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_images import NO_MEANING
from pyrseg_jax.importing.mask_painting import mask_painter
from pyrseg_jax.importing.mask_pairs import (
    INDEX,
    describe_signs,
    kind_of_masks,
    need_masks,
    pair_masks,
    photograph_or_error,
)
from pyrseg_jax.importing.source_tree import SourceTree

VOID_VALUE = 255


def recognize(tree: SourceTree) -> str | None:
    """Recognize masks with one number per pixel."""
    found = kind_of_masks(tree)
    return found[1] if found is not None and found[0] == INDEX else None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read the numbers as the lines of the list, the first line being 0."""
    listed = options.classes
    if listed is None:
        listed = find_name_list(tree)
        if listed is None:
            raise UserError(
                f"{tree.place('')} has masks with one number per pixel, and no list says what they mean: write the name of each "
                "class on a line of a text file, beginning with that of 0, and give it with --classes=FILE"
            )
    stop = listed.first + len(listed.names)
    table = np.full(max(256, stop), NO_MEANING, np.uint16)
    table[VOID_VALUE] = IGNORED
    table[listed.first : stop] = np.arange(1, len(listed.names) + 1)
    notes, pictures = Notes(), []
    for pair in pair_masks(tree, need_masks(tree), notes):
        image = photograph_or_error(tree, pair)
        pictures.append(Picture(pair.image or pair.mask, image, pair.split, mask_painter(tree, pair.mask, table)))
    return Annotations(listed.names, tuple(pictures), notes, void_meaning="the value 255", has_own_order=True)


FORMAT = Format(
    "index_masks",
    "label maps with one number per pixel and a list of classes",
    describe_signs("with one number per pixel"),
    recognize,
    read,
    is_general=True,
)
