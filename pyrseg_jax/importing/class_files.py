"""Find the list of classes that lies beside masks, by the usual names of such files."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.class_list import ClassList, Color, check_names, read_class_list
from pyrseg_jax.importing.fields import value_of
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.storage.documents import shorten

_COLOR_LISTS = (
    *("dataset_meta.json", "label_colors.txt", "labelmap.txt", "class_dict.csv", "class_dict_seg.csv", "classes.csv"),
    *("label_colors.csv", "colors.txt", "colors.csv", "classes.txt", "labels.txt", "class_names.txt", "palette.txt"),
)
# Roboflow calls its list `_classes.csv`.
_NAME_LISTS = (
    "classes.txt",
    "labels.txt",
    "class_names.txt",
    "names.txt",
    "classes.csv",
    "_classes.csv",
    "objectInfo150.txt",
)


def find_name_list(tree: SourceTree) -> ClassList | None:
    """Return the first list of names beside the masks, or None; raises UserError for a list that cannot be read."""
    found = place_of_list(tree, _NAME_LISTS)
    return None if found is None else read_class_list(tree.root / found)


def find_color_list(tree: SourceTree) -> ClassList | None:
    """Return the first list with colors beside the masks, or None; raises UserError for a list that cannot be read."""
    for name in _COLOR_LISTS:
        found = place_of_list(tree, [name])
        if found is None:
            continue
        listed = _read_meta(tree, found) if found.endswith(".json") else read_class_list(tree.root / found)
        if listed.colors is not None:
            return listed
    return None


def _read_meta(tree: SourceTree, name: str) -> ClassList:
    """Read the list of classes that Datumaro writes: names by number, and colors in the same order."""
    document, place = tree.json(name), tree.place(name)
    names = value_of(document, "label_map", place, dict, "an object of numbers and names")
    colors = value_of(document, "segmentation_colors", place, list, "a list of colors")
    found: list[Color] = []
    for i, color in enumerate(colors):
        found.append(_color(color, f"{place}: segmentation_colors[{i}]"))
    if len(found) != len(names):
        raise UserError(
            f"{place} has {len(names)} names in label_map, but {len(found)} segmentation_colors: give each name one"
        )
    texts = tuple(str(text).strip() for text in names.values())
    check_names(texts, [f"{place}: label_map[{key!r}]" for key in names])
    return ClassList(tree.root / name, texts, tuple(found))


def _color(color: Any, place: str) -> Color:
    if (
        not isinstance(color, list)
        or len(color) != 3
        or not all(isinstance(value, int) and 0 <= value <= 255 for value in color)
    ):
        raise UserError(f"{place} is {shorten(color)}: expected three whole numbers from 0 to 255")
    return color[0], color[1], color[2]


def place_of_list(tree: SourceTree, names: Iterable[str]) -> str | None:
    """Return the first file with one of these names, in the fewest folders."""
    wanted = [name.lower() for name in names]
    found = [name for name in tree.files if PurePosixPath(name).name.lower() in wanted]
    return (
        min(found, key=lambda name: (name.count("/"), wanted.index(PurePosixPath(name).name.lower())))
        if found
        else None
    )
