"""Read what LabelMe's `labelme_json_to_dataset` writes: a folder `NAME_json` for each picture with `img.png` and `label.png`.

`label_names.txt` in each folder names the values of its `label.png`, beginning with 0, so one class may have several values in one
source. `_background_` takes the pixels without a label.

Source: the LabelMe project, `labelme_json_to_dataset`.
"""

from pathlib import PurePosixPath

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BACKGROUND, UNLABELED, Annotations, Notes, Options, Picture
from pyrseg_jax.importing.class_list import read_class_list
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_images import NO_MEANING
from pyrseg_jax.importing.mask_painting import mask_painter
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path

PHOTOGRAPH, MASK, NAMES = "img.png", "label.png", "label_names.txt"
NO_LABEL = "_background_"


def recognize(tree: SourceTree) -> str | None:
    """Find the folders; where their JSON files lie beside them, these are read instead, because they hold the same and more."""
    found = _folders(tree)
    if not found or any(tree.has(f"{_name_of(folder)}.json") for folder in found):
        return None
    return f"there are folders such as {found[0]} with {PHOTOGRAPH}, {MASK}, and {NAMES}"


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read the mask of each folder by its own list of names; equal names are one class."""
    folders = _folders(tree)
    if not folders:
        raise UserError(f"{tree.place('')} has no folder with {PHOTOGRAPH}, {MASK}, and {NAMES}")
    values: dict[str, int] = {}
    notes, pictures = Notes(), []
    for folder in folders:
        listed = read_class_list(tree.root / folder / NAMES)
        table = np.full(256, NO_MEANING, np.uint16)
        for number, name in enumerate(listed.names[:256]):
            table[number] = UNLABELED if name == NO_LABEL else values.setdefault(name, len(values) + 1)
        paint = mask_painter(tree, f"{folder}/{MASK}", table)
        name = f"{_name_of(folder)}.png"
        pictures.append(Picture(name, tree.root / folder / PHOTOGRAPH, split_of_path(name), paint))
    for folder in sorted(tree.folders() - set(folders)):
        missing = [name for name in (PHOTOGRAPH, MASK, NAMES) if not tree.has(f"{folder}/{name}")]
        if len(missing) < 3:
            notes.add(f"folder without {' and '.join(missing)}", tree.place(folder))
    return Annotations(tuple(values), tuple(pictures), notes, BACKGROUND)


def _folders(tree: SourceTree) -> list[str]:
    """Return the folders that hold all three files."""
    parents = (str(PurePosixPath(name).parent) for name in tree.files if PurePosixPath(name).name == NAMES)
    return [folder for folder in parents if all(tree.has(f"{folder}/{name}") for name in (PHOTOGRAPH, MASK))]


def _name_of(folder: str) -> str:
    return folder.removesuffix("_json")


FORMAT = Format(
    "labelme_folders",
    "folders NAME_json of LabelMe's labelme_json_to_dataset",
    recognize,
    read,
)
