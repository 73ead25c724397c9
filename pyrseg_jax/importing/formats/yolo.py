"""Read YOLO's segmentation labels: a text file for each image, with a class number and a polygon in shares of the image per line.

`data.yaml` names the classes and the folders of the splits; without one, a `classes.txt` names the classes. A line of five
numbers is a box without an outline; it becomes void. An image without a text file was not labeled and is left out; one with an
empty file shows only background.

Source: the Ultralytics documentation, "Instance Segmentation Datasets Overview".

Chosen: larger objects are painted first, so that small ones stay visible; pixels are filled as in COCO's library.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import yaml

from pyrseg_jax.errors import UserError, first_line
from pyrseg_jax.importing.annotations import BACKGROUND, BY_AREA, IGNORED, Annotations, Notes, Options
from pyrseg_jax.importing.class_files import find_name_list
from pyrseg_jax.importing.fields import number_from
from pyrseg_jax.importing.formats.coco import BOX_ONLY, CROWD
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.object_pictures import ObjectPicture, finish_all
from pyrseg_jax.importing.objects import Object, box_ring, percent_polygon_filler
from pyrseg_jax.importing.outlines import outline_of
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import TEST, TRAINING, VALIDATION, split_of_path
from pyrseg_jax.storage.documents import shorten

SPLIT_KEYS = {"train": TRAINING, "val": VALIDATION, "valid": VALIDATION, "test": TEST}
_LABELS = {"images": "labels", "Images": "Labels", "IMAGES": "LABELS"}  # folder of images → folder of text files
SLACK = 0.01  # a share may lie this far outside 0 … 1: exporters round


def recognize(tree: SourceTree) -> str | None:
    """Find a YAML file with names of classes, or text files of numbers in a folder `labels`."""
    for name in tree.annotation_files(".yaml", ".yml"):
        if _is_yaml(tree, name):
            return f"{name} lists names of classes"
    labels = [name for name in tree.annotation_files(".txt") if "labels" in PurePosixPath(name.lower()).parts[:-1]]
    return f"there are text files in a folder labels, such as {labels[0]}" if labels and tree.images() else None


def _is_yaml(tree: SourceTree, name: str) -> bool:
    try:
        return "names" in _read_yaml(tree, name)
    except UserError as error:
        tree.problems.append(str(error))
        return False


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read each image that has a text file at the place that YOLO expects."""
    found = [name for name in tree.annotation_files(".yaml", ".yml") if _is_yaml(tree, name)]
    document = _read_yaml(tree, found[0]) if found else {}
    if any(_read_yaml(tree, name)["names"] != document["names"] for name in found[1:]):
        raise UserError(
            f"{tree.place(found[0])} and {tree.place(found[1])} list different names of classes: name the right file with --input"
        )
    listed = options.classes or (None if found or tree.problems else find_name_list(tree))
    if found:
        names, where = _class_names(document, tree.place(found[0])), tree.place(found[0])
    elif listed is not None:
        if listed.first:
            raise UserError(
                f"{listed.path} counts its classes from {listed.first}, but YOLO from 0: leave the numbers out"
            )
        names, where = listed.names, str(listed.path)
    else:
        why = tree.problems[0] if tree.problems else f"{tree.place('')} has no YAML file with the names of the classes"
        raise UserError(
            f"{why}: repair it, or list the classes in a text file, one per line, and give it with --classes=FILE"
        )
    splits = _Splits(tree, document, PurePosixPath(found[0]).parent if found else PurePosixPath("."))
    notes, pictures = Notes(), []
    for image in tree.images():
        label = _label_of(tree, image)
        if label is None:
            notes.add("image without a label file", tree.place(image))
            continue
        picture = ObjectPicture(image, tree.root / image, splits.of(image))
        try:
            picture.objects += _read_labels(tree, label, names, where, notes)
        except UserError as error:
            picture.error = error
        pictures.append(picture)
    finished = finish_all(pictures, options, BACKGROUND, BY_AREA, notes)
    return Annotations(names, finished, notes, BACKGROUND, has_own_order=not found)


def _read_yaml(tree: SourceTree, name: str) -> Mapping[str, Any]:
    try:
        document = yaml.load(tree.text(name), Loader=yaml.BaseLoader)  # keeps texts: `no` and `on` are names, too
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{tree.place(name)} is not YAML ({first_line(error)}): export it again") from error
    return document if isinstance(document, dict) else {}


def _class_names(document: Mapping[str, Any], place: str) -> tuple[str, ...]:
    """Return the names by their numbers, given as a list or as number: name."""
    names = document["names"]
    if isinstance(names, dict):
        numbers = list(names)
        if set(numbers) != {str(number) for number in range(len(numbers))}:
            raise UserError(f"{place} numbers its names {shorten(numbers)}: expected 0, 1, 2, … without gaps")
        names = [names[str(number)] for number in range(len(numbers))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{place} has names={shorten(names)}: expected a list of names of classes")
    if str(document.get("nc", "")).isdecimal() and int(document["nc"]) != len(names):
        raise UserError(f"{place} has nc={document['nc']}, but {len(names)} names: make them agree")
    return tuple(name.strip() for name in names)


class _Splits:
    """The split of each image, by the folders and lists in the YAML file, or else by the folder's name."""

    def __init__(self, tree: SourceTree, document: Mapping[str, Any], base: PurePosixPath):
        self._listed: dict[str, str] = {}
        self._folders: list[tuple[str, str]] = []
        for key, split in SPLIT_KEYS.items():
            entries = document.get(key)
            for entry in entries if isinstance(entries, list) else [entries]:
                if not isinstance(entry, str) or not entry.strip():
                    continue
                parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
                if entry.endswith(".txt"):
                    listed = _nearest_file(tree, parts, base)
                    for line in tree.text(listed).splitlines() if listed is not None else ():
                        if line.strip() and (path := tree.find_image(line.strip(), [str(base), "."])):
                            self._listed[path] = split
                else:
                    self._folders.append(("/".join(parts), split))
        self._folders.sort(key=lambda item: -len(item[0]))

    def of(self, image: str) -> str | None:
        if image in self._listed:
            return self._listed[image]
        parent = f"/{PurePosixPath(image).parent}/"
        for folder, split in self._folders:
            tails = [folder.split("/", i)[-1] for i in range(folder.count("/") + 1)]
            if any(f"/{tail}/" in parent for tail in tails if tail not in ("images", "")):
                return split
        return split_of_path(str(PurePosixPath(image).parent))


def _nearest_file(tree: SourceTree, parts: Sequence[str], base: PurePosixPath) -> str | None:
    """Return the file that a path in a YAML file means: below the YAML file's folder, or else with most of the path's folders."""
    tails = ["/".join(parts[i:]) for i in range(len(parts))]
    places = [str(base / tail) for tail in tails] + tails
    found = next((place for place in places if tree.has(place)), None)
    return found or next((name for tail in tails for name in tree.files if name.endswith(f"/{tail}")), None)


def _label_of(tree: SourceTree, image: str) -> str | None:
    """Return the text file of an image: in the folder `labels` in the place of `images`, or beside the image."""
    path = PurePosixPath(image)
    swapped = [_LABELS.get(part, part) for part in path.parts[:-1]]
    for candidate in (PurePosixPath(*swapped, f"{path.stem}.txt"), path.with_suffix(".txt")):
        if tree.has(str(candidate)):
            return str(candidate)
    return None


def _read_labels(tree: SourceTree, name: str, names: Sequence[str], where: str, notes: Notes) -> list[Object]:
    objects = []
    for number, line in enumerate(tree.text(name).splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        place = f"{tree.place(name)}, line {number}"
        index = number_from(cells[0], place, "class")
        if not index.is_integer() or not 0 <= index < len(names):
            raise UserError(
                f"{place} has the class {cells[0]}: expected a number from 0 to {len(names) - 1}, as {where} lists them"
            )
        shares = np.array([number_from(cell, place, "coordinate") for cell in cells[1:]])
        if shares.size and (shares.min() < -SLACK or shares.max() > 1 + SLACK):
            worst = shares[np.abs(shares - 0.5).argmax()]
            raise UserError(
                f"{place} has the coordinate {worst:g}: expected shares of the width and height, from 0 to 1"
            )
        if len(shares) == 4:
            x, y, width, height = shares
            ring = box_ring(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            objects.append(Object(IGNORED, percent_polygon_filler(ring), place, CROWD))
            notes.add(BOX_ONLY, place)
        elif len(shares) % 2:
            raise UserError(f"{place} has {len(shares)} coordinates: expected x y for each of at least 3 points")
        elif (ring := outline_of(shares, place, notes)) is not None:
            objects.append(Object(int(index) + 1, percent_polygon_filler(ring), place))
    return objects


FORMAT = Format(
    "yolo",
    "YOLO segmentation: polygons in text files",
    recognize,
    read,
    has_file=True,
)
