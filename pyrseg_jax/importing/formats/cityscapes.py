"""Read Cityscapes: `leftImg8bit/SPLIT/CITY/` and `gtFine/SPLIT/CITY/`, with the 19 classes that are evaluated.

Of each picture, `labelIds`, `instanceIds` or `labelTrainIds` is read, the first that is there. An instance's number is its class
times 1000 plus a count.

A `label_colors.txt` names other classes, as CVAT and Datumaro write it: its lines count from 0.

Source: Cordts et al., *The Cityscapes Dataset for Semantic Urban Scene Understanding*, CVPR 2016; cityscapesScripts, `labels.py`.
"""

from pathlib import PurePosixPath

import numpy as np

from pyrseg_jax.data.datasets.cityscapes import LABEL_SPACE, NUM_IDS
from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import IGNORED, Annotations, Notes, Options, Picture
from pyrseg_jax.importing.class_files import place_of_list
from pyrseg_jax.importing.class_list import read_class_list
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_images import NO_MEANING
from pyrseg_jax.importing.mask_painting import mask_painter
from pyrseg_jax.importing.object_pictures import image_or_error
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path

KINDS = ("labelIds", "instanceIds", "labelTrainIds")
SETS = ("gtFine", "gtCoarse")
PER_CLASS = 1000
OWN_LIST = "label_colors.txt"


def recognize(tree: SourceTree) -> str | None:
    """Find a label file by its ending."""
    found = _labels(tree)
    return f"there are files such as {found[0][0]}" if found else None


def _labels(tree: SourceTree) -> list[tuple[str, str]]:
    """Return (path, kind) of the best label file of each picture."""
    best: dict[str, tuple[int, str, str]] = {}
    for name in tree.files:
        for rank, kind in enumerate(KINDS):
            for part in SETS:
                ending = f"_{part}_{kind}.png"
                if name.endswith(ending):
                    key = PurePosixPath(name).name.removesuffix(ending)
                    best[key] = min(best.get(key, (len(KINDS), "", "")), (rank, name, kind))
    return [(name, kind) for _, name, kind in sorted(best.values(), key=lambda item: item[1])]


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read the label files, and the images of the same places and times."""
    notes, pictures = Notes(), []
    labels = _labels(tree)
    if not labels:
        raise UserError(
            f"{tree.place('')} has no file that ends in _gtFine_labelIds.png, _instanceIds.png or _labelTrainIds.png"
        )
    own = place_of_list(tree, [OWN_LIST])
    names, table = (LABEL_SPACE.names, _id_table()) if own is None else _own_table(tree, own)
    for name, kind in labels:
        path = PurePosixPath(name)
        stem = (
            path.name[: -len(f"_gtFine_{kind}.png")]
            if "_gtFine_" in path.name
            else path.name[: -len(f"_gtCoarse_{kind}.png")]
        )
        folders = [str(path.parent).replace(part, "leftImg8bit") for part in SETS]
        wanted = f"{stem}_leftImg8bit.png"
        image = tree.find_image(wanted, folders)
        source = image_or_error(tree, image, wanted, tree.place(name))
        paint = mask_painter(tree, name, _train_id_table() if kind == "labelTrainIds" else table, PER_CLASS)
        pictures.append(Picture(image or name, source, split_of_path(str(path.parent)), paint))
    meaning = "the ids that Cityscapes does not evaluate" if own is None else ""
    return Annotations(names, tuple(pictures), notes, void_meaning=meaning)


def _own_table(tree: SourceTree, name: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the classes that a list names, and the table from ids to class maps."""
    names = read_class_list(tree.root / name).names
    table = np.full(max(256, len(names)), NO_MEANING, np.uint16)
    table[: len(names)] = np.arange(1, len(names) + 1)
    return names, table


def _id_table() -> np.ndarray:
    table = np.full(256, NO_MEANING, np.uint16)
    table[:NUM_IDS] = table[255] = IGNORED  # 255 is the license plate, -1
    table[list(LABEL_SPACE.file_ids)] = np.arange(1, LABEL_SPACE.num_classes + 1)
    return table


def _train_id_table() -> np.ndarray:
    table = np.full(256, NO_MEANING, np.uint16)
    table[: LABEL_SPACE.num_classes] = np.arange(1, LABEL_SPACE.num_classes + 1)
    table[255] = IGNORED
    return table


FORMAT = Format(
    "cityscapes",
    "Cityscapes: leftImg8bit and gtFine",
    recognize,
    read,
)
