"""Read binary masks that lie in a folder for each class: `masks/CLASS/NAME.png` belongs to `images/NAME.jpg`.

Where masks overlap, the later class covers the earlier one. The order is that of `--classes`, or else alphabetical.
"""

from collections.abc import Mapping

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BACKGROUND, Annotations, Notes, Options, Paint, Picture
from pyrseg_jax.importing.formats.binary_masks import read_binary
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_kinds import CLASS_FOLDERS, kind_of_masks
from pyrseg_jax.importing.mask_pairs import MaskPair, class_folders, pair_masks, photograph_or_error
from pyrseg_jax.importing.source_tree import SourceTree


def recognize(tree: SourceTree) -> str | None:
    """Recognize a folder of masks for each class."""
    found = kind_of_masks(tree)
    return found[1] if found is not None and found[0] == CLASS_FOLDERS else None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read the masks of each picture from all folders."""
    folders = class_folders(tree)
    if not folders:
        raise UserError(f"{tree.place('')} has no folders of masks for single classes: expected masks/CLASS/NAME.png")
    names = tuple(sorted(folders))
    if options.classes is not None:
        names = tuple(name for name in options.classes.names if name in folders)
        names += tuple(sorted(folders.keys() - set(names)))
    values = {mask: value for value, name in enumerate(names, 1) for mask in folders[name]}
    notes, pictures = Notes(), []
    pairs = pair_masks(tree, list(values), notes, folders)
    by_picture: dict[str, dict[int, MaskPair]] = {}
    for pair in pairs:
        by_picture.setdefault(pair.image or pair.mask, {})[values[pair.mask]] = pair
    for name in sorted(by_picture):
        masks = by_picture[name]
        pair = next(iter(masks.values()))
        paint = _painter(tree, {value: pair.mask for value, pair in masks.items()})
        pictures.append(Picture(name, photograph_or_error(tree, pair), pair.split, paint))
    return Annotations(names, tuple(pictures), notes, BACKGROUND)


def _painter(tree: SourceTree, masks: Mapping[int, str]) -> Paint:
    def paint(height: int, width: int) -> np.ndarray:
        found = {value: read_binary(tree, masks[value]) for value in sorted(masks)}
        rows, columns = next(iter(found.values())).shape
        class_map = np.zeros((rows, columns), np.uint16)
        for value, mask in found.items():
            if mask.shape != (rows, columns):
                raise UserError(
                    f"{tree.place(masks[value])} is {mask.shape[1]} × {mask.shape[0]} pixels, but another mask of the picture is "
                    f"{columns} × {rows}: masks of one picture have one size"
                )
            class_map[mask] = value
        return class_map

    return paint


FORMAT = Format(
    "class_folders",
    "binary masks in a folder for each class",
    recognize,
    read,
    is_general=True,
)
