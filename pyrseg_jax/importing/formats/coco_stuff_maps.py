"""Read the pixel maps of COCO-Stuff (`stuff_thing_maps`): PNGs of category numbers minus one, and 255 for unlabeled pixels.

Source: the COCO-Stuff project, "stuffthingmaps_trainval2017"; the names are those of COCO-Stuff 10K, whose 171 classes occur.
"""

from pathlib import PurePosixPath

import numpy as np

from pyrseg_jax.data.class_table import read_class_table
from pyrseg_jax.importing.annotations import IGNORED, Annotations, Notes, Options, Picture
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_images import NO_MEANING
from pyrseg_jax.importing.mask_painting import mask_painter
from pyrseg_jax.importing.object_pictures import image_or_error
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path

FOLDERS = ("stuff_thing_maps", "stuffthingmaps", "stuffthingmaps_trainval2017", "stuff_things_maps")
UNLABELED_VALUE = 255


def recognize(tree: SourceTree) -> str | None:
    """Find the folder of the maps."""
    found = tree.folders_named(*FOLDERS)
    return f"there is a folder {found[0]}" if found else None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read the maps, and the images of the same names from any other folder."""
    classes = read_class_table("coco_stuff10k")
    table = np.full(256, NO_MEANING, np.uint16)
    table[[value - 1 for value in classes.file_ids]] = np.arange(1, classes.num_classes + 1)
    table[UNLABELED_VALUE] = IGNORED
    notes, pictures = Notes(), []
    images = {}
    folders = tree.folders_named(*FOLDERS)
    for name in tree.images():
        if not any(name.startswith(f"{folder}/") for folder in folders):
            images.setdefault(PurePosixPath(name).stem, name)
    for folder in folders[:1]:
        for name in tree.files_in(folder):
            if PurePosixPath(name).suffix.lower() != ".png" or "labelTrainIds" in name:
                continue
            path = images.get(PurePosixPath(name).stem)
            image = image_or_error(tree, path, f"{PurePosixPath(name).stem}.jpg", tree.place(name))
            pictures.append(Picture(path or name, image, split_of_path(name), mask_painter(tree, name, table)))
    return Annotations(classes.names, tuple(pictures), notes, void_meaning="the value 255 (unlabeled)")


FORMAT = Format(
    "coco_stuff_maps",
    "COCO-Stuff pixel maps (stuff_thing_maps)",
    recognize,
    read,
)
