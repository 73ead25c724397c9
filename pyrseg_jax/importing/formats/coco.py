"""Read COCO's JSON of objects and stuff: polygons, runs (RLE), crowds.

One file for each split, with `images`, `annotations` and `categories`. Several polygons of an annotation are united; pixels are
filled as COCO's own library fills them. If only the box of an object is known, the box becomes void.

Source: cocodataset.org/#format-data.

Chosen: larger objects are painted first, so that small ones stay visible; crowds lie below all objects, and stuff below all things.
"""

import re
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BACKGROUND, BY_AREA, IGNORED, VOID, Annotations, Notes, Options
from pyrseg_jax.importing.fields import list_of, points_of, side_of, text_of, value_of, whole_number_of
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.object_pictures import ObjectPicture, finish_all, image_or_error
from pyrseg_jax.importing.objects import Fill, Object, box_ring, part_of, polygon_filler
from pyrseg_jax.importing.other_files import OTHER_KIND, read_json_or_pass
from pyrseg_jax.importing.outlines import outline_of
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path
from pyrseg_jax.shapes.polygons import Part
from pyrseg_jax.shapes.rle import decode_runs, decompress_runs
from pyrseg_jax.storage.documents import shorten

KEYS = ("images", "annotations", "categories")
CROWD, STUFF = -1, -2  # layers below the objects
BOX_ONLY = "object of which only the box is known (its box became void)"
NO_SHAPE = "object without a shape"


def is_coco(document: Any) -> bool:
    """Tell whether a document has the lists of COCO's files."""
    return isinstance(document, dict) and all(isinstance(document.get(key), list) for key in KEYS)


def is_panoptic(document: Any) -> bool:
    """Tell whether the annotations of a COCO file are lists of segments in PNGs."""
    first = next(iter(document["annotations"]), None)
    return isinstance(first, dict) and "segments_info" in first


def recognize(tree: SourceTree) -> str | None:
    """Find a JSON file with the lists of COCO and no panoptic segments."""
    for name in tree.first_jsons():
        document = tree.peek(name)
        if is_coco(document) and not is_panoptic(document):
            return f"{name} has the lists images, annotations and categories"
    return None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read all files of objects and stuff below the root."""
    reader = _Reader(tree)
    names = tree.annotation_files(".json")
    stuff = [name for name in names if PurePosixPath(name).name.startswith("stuff")]
    for name in [name for name in names if name not in stuff] + stuff:
        reader.read_file(name, is_stuff=name in stuff)
    if not reader.num_files:
        raise UserError(f"{tree.place('')} has no JSON file with the lists images, annotations and categories")
    unlabeled = VOID if reader.has_stuff else BACKGROUND
    return Annotations(
        tuple(reader.values),
        finish_all(list(reader.pictures.values()), options, unlabeled, BY_AREA, reader.notes),
        reader.notes,
        unlabeled,
    )


class _Reader:
    def __init__(self, tree: SourceTree):
        self.tree, self.notes = tree, Notes()
        self.values: dict[str, int] = {}  # name of a class → value in class maps
        self.pictures: dict[str, ObjectPicture] = {}
        self.num_files, self.has_stuff = 0, False

    def read_file(self, name: str, is_stuff: bool) -> None:
        """Add the objects of one file; stuff only to pictures that are there already, if any are."""
        document = read_json_or_pass(self.tree, name, KEYS, self.notes)
        place = self.tree.place(name)
        if document is None:
            return
        if not is_coco(document) or is_panoptic(document):
            self.notes.add(OTHER_KIND, place)
            return
        if self.num_files and "keypoints" in PurePosixPath(name).name:
            self.notes.add("JSON file of keypoints, which repeats the objects of another", place)
            return
        self.num_files += 1
        self.has_stuff |= is_stuff
        classes = self._read_categories(document, place)
        pictures = self._read_images(document, name, place)
        for i, annotation in enumerate(document["annotations"]):
            where = f"{place}: annotations[{i}]"
            identity = find_identity(whole_number_or_text(annotation, "image_id", where), pictures)
            if identity is None:
                raise UserError(
                    f"{where} has image_id={shorten(annotation['image_id'])}, which no image has: the file is incomplete"
                )
            picture = pictures[identity]
            try:
                self._add_object(annotation, picture, classes, where, is_stuff)
            except UserError as error:
                picture.error = picture.error or error

    def _read_categories(self, document: dict, place: str) -> dict[Any, int]:
        """Return id of a category → value in class maps; equal names in several files are one class."""
        found: dict[Any, int] = {}
        for i, category in enumerate(document["categories"]):
            where = f"{place}: categories[{i}]"
            identity, name = whole_number_or_text(category, "id", where), text_of(category, "name", where).strip()
            if identity in found:
                raise UserError(f"{where} repeats the id {identity}: each category has one of its own")
            found[identity] = self.values.setdefault(name, len(self.values) + 1)
        return found

    def _read_images(self, document: dict, name: str, place: str) -> dict[Any, ObjectPicture]:
        split, folders = split_of_path(name), image_folders(name)
        found: dict[Any, ObjectPicture] = {}
        for i, image in enumerate(document["images"]):
            where = f"{place}: images[{i}]"
            identity, file_name = whole_number_or_text(image, "id", where), text_of(image, "file_name", where)
            size = side_of(image, "height", where), side_of(image, "width", where)
            if identity in found:
                raise UserError(f"{where} repeats the id {identity}: each image has one of its own")
            path = self.tree.find_image(file_name, folders)
            key = path or f"{split}/{file_name}"
            if key not in self.pictures:
                source = image_or_error(self.tree, path, file_name, where)
                self.pictures[key] = ObjectPicture(path or file_name, source, split, size, where)
            picture = self.pictures[key]
            if split is not None and picture.split not in (None, split):
                raise UserError(
                    f"{where} names {picture.name} for {split}, but {picture.place} names it for {picture.split}: a picture "
                    "belongs to one split; remove it from one of the files"
                )
            picture.split = picture.split or split
            found[identity] = self.pictures[key]
        return found

    def _add_object(
        self, annotation: dict, picture: ObjectPicture, classes: dict[Any, int], where: str, is_stuff: bool
    ) -> None:
        category = find_identity(whole_number_or_text(annotation, "category_id", where), classes)
        if category is None:
            raise UserError(
                f"{where} has category_id={annotation['category_id']}, which no category has: add it or correct the object"
            )
        assert picture.size is not None
        layer = STUFF if is_stuff else CROWD if annotation.get("iscrowd") == 1 else 0
        segmentation = annotation.get("segmentation")
        fill = None
        if segmentation not in (None, [], {}):
            fill = read_segmentation(segmentation, picture.size, where, self.notes)
        if fill is not None:
            picture.objects.append(Object(classes[category], fill, where, layer))
        elif annotation.get("bbox") not in (None, []):
            ring = read_box(annotation["bbox"], where)
            picture.objects.append(Object(IGNORED, polygon_filler([ring]), where, CROWD))
            self.notes.add(BOX_ONLY, where)
        else:
            self.notes.add(NO_SHAPE, where)


def read_segmentation(segmentation: Any, size: tuple[int, int], where: str, notes: Notes) -> Fill | None:
    """Return the `fill` of an object, given its polygons or runs; None if no polygon of it encloses an area."""
    if isinstance(segmentation, list):
        if segmentation and not isinstance(segmentation[0], list):
            segmentation = [segmentation]
        rings = [outline_of(polygon, where, notes) for polygon in segmentation]
        usable = [ring for ring in rings if ring is not None]
        return polygon_filler(usable) if usable else None
    written = list_of(segmentation, "size", where)
    if written != list(size):
        raise UserError(
            f"{where} has runs for the size {written}, but its image has [{size[0]}, {size[1]}] (height, width)"
        )
    counts = value_of(segmentation, "counts", where, (list, str), "a list of numbers or a text")

    def fill(height: int, width: int) -> Part:
        try:
            runs = decompress_runs(counts) if isinstance(counts, str) else np.array(counts, np.int64)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"counts={shorten(counts)} is not a list of whole numbers") from error
        return part_of(decode_runs(runs, *size))

    return fill


def read_box(box: Any, where: str) -> np.ndarray:
    """Return a box [x, y, width, height] as a ring."""
    (left, top), (width, height) = points_of(box, f"{where}: bbox", fewest=2)[:2]
    return box_ring(left, top, left + width, top + height)


def whole_number_or_text(document: Any, key: str, where: str) -> int | str:
    """Return an identity: COCO numbers them, and some tools write texts."""
    if isinstance(document, dict) and isinstance(document.get(key), str):
        return text_of(document, key, where)
    return whole_number_of(document, key, where)


def find_identity(wanted: int | str, known: Collection[int | str]) -> int | str | None:
    """Return an identity as the list of images or categories has it; "1" stands for 1, and 1 for "1", if the other is not there."""
    if wanted in known:
        return wanted
    if isinstance(wanted, int):
        return str(wanted) if str(wanted) in known else None
    number = int(wanted) if re.fullmatch(r"[0-9]{1,18}", wanted) else None
    return number if number in known else None


def image_folders(name: str) -> list[str]:
    """Return the folders where the images of a JSON file are expected, the most likely one first.

    `annotations/instances_train2017.json` belongs to `images/train2017`, `train2017`, `images` and so on.
    """
    path = PurePosixPath(name)
    here, above = str(path.parent), str(path.parent.parent)
    part = path.stem.partition("_")[2] or path.stem
    bases = list(dict.fromkeys([above, here]))
    inner = [f"images/{part}", part, f"{part}/images", "images", "data", "."]
    return [str(PurePosixPath(base, folder)) for folder in inner for base in bases]


FORMAT = Format(
    "coco",
    "COCO JSON: instances and stuff, as polygons or RLE",
    recognize,
    read,
    has_file=True,
)
