"""Read COCO's panoptic annotations: a JSON file of segments, and a PNG for each image whose colors number them.

The number of a segment is R + 256 G + 65536 B; 0 is unlabeled and becomes void.

Source: cocodataset.org/#format-data, "Panoptic Segmentation".
"""

import functools
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import IGNORED, Annotations, Notes, Options, Picture
from pyrseg_jax.importing.fields import list_of, text_of, whole_number_of
from pyrseg_jax.importing.formats.coco import (
    KEYS,
    find_identity,
    image_folders,
    is_coco,
    is_panoptic,
    whole_number_or_text,
)
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_images import read_mask
from pyrseg_jax.importing.object_pictures import image_or_error
from pyrseg_jax.importing.other_files import OTHER_KIND, read_json_or_pass
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path


def recognize(tree: SourceTree) -> str | None:
    """Find a JSON file with panoptic segments."""
    for name in tree.first_jsons():
        document = tree.peek(name)
        if is_coco(document) and is_panoptic(document):
            return f"{name} has annotations with segments_info"
    return None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read all panoptic files below the root."""
    notes, values, pictures = Notes(), {}, []
    for name in tree.annotation_files(".json"):
        document = read_json_or_pass(tree, name, KEYS, notes)
        if document is None:
            continue
        if not is_coco(document) or not is_panoptic(document):
            notes.add(OTHER_KIND, tree.place(name))
            continue
        pictures += _read_file(tree, name, document, values, notes)
    if not values:
        raise UserError(f"{tree.place('')} has no JSON file whose annotations have segments_info")
    return Annotations(tuple(values), tuple(pictures), notes, void_meaning="pixels of no segment")


def _read_file(tree: SourceTree, name: str, document: dict, values: dict[str, int], notes: Notes) -> list[Picture]:
    place, split, pictures = tree.place(name), split_of_path(name), []
    classes = {}
    for i, category in enumerate(document["categories"]):
        where = f"{place}: categories[{i}]"
        label = text_of(category, "name", where).strip()
        classes[whole_number_of(category, "id", where)] = values.setdefault(label, len(values) + 1)
    images = {
        whole_number_or_text(image, "id", f"{place}: images[{i}]"): text_of(image, "file_name", f"{place}: images[{i}]")
        for i, image in enumerate(document["images"])
    }
    masks = [str(PurePosixPath(name).with_suffix("")), *image_folders(name)]
    for i, annotation in enumerate(document["annotations"]):
        where = f"{place}: annotations[{i}]"
        identity = find_identity(whole_number_or_text(annotation, "image_id", where), images)
        if identity is None:
            raise UserError(
                f"{where} has image_id={annotation['image_id']}, which no image has: the file is incomplete"
            )
        mask_name = text_of(annotation, "file_name", where)
        path = tree.find_image(images.pop(identity), image_folders(name))
        shown = path or mask_name
        paint = functools.partial(_paint, tree, masks, mask_name, path, annotation, classes, where)
        pictures.append(Picture(shown, image_or_error(tree, path, shown, where), split, paint))
    for file_name in images.values():
        notes.add("image without annotations", f"{place}: {file_name}")
    return pictures


def _paint(
    tree: SourceTree,
    folders: list[str],
    mask_name: str,
    photograph: str | None,
    annotation: Any,
    classes: dict[int, int],
    where: str,
    height: int,
    width: int,
) -> np.ndarray:
    path = tree.find_image(mask_name, folders)
    if path is None or path == photograph:  # both have the same name
        raise UserError(
            f"{where} names the PNG {mask_name!r}, which is not in {tree.place(folders[0])}: unpack it there"
        )
    colors = read_mask(tree.read(path), tree.place(path)).colors
    if colors is None:
        raise UserError(f"{tree.place(path)} stores one number per pixel: expected the colors of a panoptic PNG")
    wide = colors.astype(np.int64)
    identities = wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]
    table = {0: IGNORED}
    for i, segment in enumerate(list_of(annotation, "segments_info", where)):
        place = f"{where}.segments_info[{i}]"
        category = whole_number_of(segment, "category_id", place)
        if category not in classes:
            raise UserError(f"{place} has category_id={category}, which no category has: add it or correct the segment")
        table[whole_number_of(segment, "id", place)] = classes[category]
    found, inverse = np.unique(identities, return_inverse=True)
    unknown = [int(identity) for identity in found if int(identity) not in table]
    if unknown:
        raise UserError(
            f"{tree.place(path)} has the segment {unknown[0]}, which {where} does not list: export both again"
        )
    return np.array([table[int(identity)] for identity in found], np.uint16)[inverse.reshape(identities.shape)]


FORMAT = Format(
    "coco_panoptic",
    "COCO panoptic: PNGs of segments and their JSON",
    recognize,
    read,
    has_file=True,
)
