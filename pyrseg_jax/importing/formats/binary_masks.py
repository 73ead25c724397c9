"""Read masks of a single class: 0 is the background, and 1, 255, or 65535 in 16 bits is the class.

The class is called `foreground`; `--classes`, or a list beside the masks, gives another name, or names for the background and the
class.
"""

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BACKGROUND, Annotations, Notes, Options, Picture
from pyrseg_jax.importing.class_files import find_name_list
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_images import read_mask
from pyrseg_jax.importing.mask_kinds import BINARY, kind_of_masks
from pyrseg_jax.importing.mask_painting import colors_of
from pyrseg_jax.importing.mask_pairs import need_masks, pair_masks, photograph_or_error
from pyrseg_jax.importing.source_tree import SourceTree

FOREGROUND = "foreground"
_16_BITS = ({65535}, {0, 65535})  # black and white


def recognize(tree: SourceTree) -> str | None:
    """Recognize masks with two values."""
    found = kind_of_masks(tree)
    return found[1] if found is not None and found[0] == BINARY else None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read the masks as background and foreground."""
    names = _names(tree, options)
    notes, pictures = Notes(), []
    for pair in pair_masks(tree, need_masks(tree), notes):
        image = photograph_or_error(tree, pair)
        pictures.append(Picture(pair.image or pair.mask, image, pair.split, _painter(tree, pair.mask)))
    return Annotations(names, tuple(pictures), notes, void_meaning="", has_own_order=True)


def _names(tree: SourceTree, options: Options) -> tuple[str, str]:
    """Return the names of the background and of the class."""
    listed = options.classes
    if listed is None:
        beside = find_name_list(tree)
        listed = beside if beside is not None and len(beside.names) <= 2 else None
    if listed is None:
        return BACKGROUND, FOREGROUND
    names = listed.names
    if len(names) == 1:
        return BACKGROUND, names[0]
    if len(names) != 2:
        raise UserError(f"{listed.path} names {len(names)} classes: binary masks have a background and one class")
    if listed.colors is not None and max(listed.colors[0]) > max(listed.colors[1]):  # the background is black
        return names[1], names[0]
    return names[0], names[1]


def _painter(tree: SourceTree, name: str):
    return lambda height, width: read_binary(tree, name).astype(np.uint16) + 1


def read_binary(tree: SourceTree, name: str) -> np.ndarray:
    """Return where a mask is set; raises UserError naming the file and a value that is neither 0 nor 1 or 255."""
    place = tree.place(name)
    mask = read_mask(tree.read(name), place)
    if mask.colors is None and mask.values is not None and set(np.unique(mask.values).tolist()) in _16_BITS:
        return mask.values > 0
    colors = colors_of(mask, place)
    values = colors[..., 0]
    found = np.unique(colors)
    if (colors != values[..., None]).any() or not set(found.tolist()) <= {0, 1, 255} or {1, 255} <= set(found.tolist()):
        raise UserError(
            f"{place} holds the values {', '.join(map(str, found[:8]))}{', …' if len(found) > 8 else ''}: expected 0 and 255, or 0 "
            "and 1; export the mask as PNG without smoothing (anti-aliasing)"
        )
    return values > 0


FORMAT = Format(
    "binary_masks",
    "masks of one class: 0 and 1, or 0 and 255",
    recognize,
    read,
    is_general=True,
)
