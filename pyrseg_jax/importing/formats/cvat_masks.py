"""Read CVAT's export "Segmentation mask": the folders of PASCAL VOC with a `labelmap.txt` of names and colors.

Each line of `labelmap.txt` is `NAME:R,G,B:PARTS:ACTIONS`. The colors of the masks give the classes; a class named `background`
takes the pixels without a label.
"""

from pathlib import PurePosixPath

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import Annotations, Notes, Options, Picture
from pyrseg_jax.importing.class_list import read_class_list
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.formats.pascal_voc import LABEL_MAP, MASKS, find_photograph, list_masks, photographs_by_stem
from pyrseg_jax.importing.mask_painting import color_painter
from pyrseg_jax.importing.object_pictures import image_or_error
from pyrseg_jax.importing.source_tree import SourceTree


def recognize(tree: SourceTree) -> str | None:
    """Find a list of labels beside a folder of masks."""
    found = _label_maps(tree)
    return f"there are {found[0]} and {MASKS}" if found else None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read the masks by their colors."""
    found = _label_maps(tree)
    if not found:
        raise UserError(f"{tree.place('')} has no {LABEL_MAP} beside a folder {MASKS}: export with both")
    listed = read_class_list(tree.root / found[0])
    if listed.colors is None:
        raise UserError(f"{tree.place(found[0])} has no colors: expected lines like NAME:R,G,B::")
    values = {color: value for value, color in enumerate(listed.colors, 1)}
    notes, pictures = Notes(), []
    photographs = photographs_by_stem(tree)
    for item in list_masks(tree, notes):
        path = find_photograph(item, photographs)
        image = image_or_error(tree, path, f"{item.name}.jpg", tree.place(item.mask))
        paint = color_painter(tree, item.mask, values, tree.place(found[0]))
        pictures.append(Picture(path or item.mask, image, item.split, paint))
    return Annotations(listed.names, tuple(pictures), notes, void_meaning="")


def _label_maps(tree: SourceTree) -> list[str]:
    found = (name for name in tree.files if PurePosixPath(name).name == LABEL_MAP)
    return [name for name in found if any(folder for folder in tree.folders_named(MASKS))]


FORMAT = Format(
    "cvat_masks",
    "CVAT's Segmentation mask: labelmap.txt and masks in its colors",
    recognize,
    read,
)
