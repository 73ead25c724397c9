"""Read masks in the layout of PASCAL VOC: `JPEGImages`, `SegmentationClass`, and lists of names in `ImageSets/Segmentation`.

A mask is a palette PNG, where index i stands for class i, or an RGB image in VOC's colors. 0 is the background. 255 is the border
between objects, which becomes void. A `class_names.txt`, as LabelMe's `labelme2voc` writes it, names other classes than VOC's.

Source: Everingham et al., *The PASCAL Visual Object Classes Challenge 2012 Development Kit*, section 3.3.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from pyrseg_jax.data.datasets.pascal_voc import LABEL_SPACE
from pyrseg_jax.data.images.image_formats import IMAGE_SUFFIXES
from pyrseg_jax.data.listing import suffix_of
from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import IGNORED, Annotations, Notes, Options, Paint, Picture
from pyrseg_jax.importing.class_list import ClassList, Color, read_class_list
from pyrseg_jax.importing.color_maps import colors_to_class_map
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_images import NO_MEANING, read_mask, to_class_map
from pyrseg_jax.importing.object_pictures import image_or_error
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_word
from pyrseg_jax.storage.names import comparable

MASKS, IMAGES, LISTS = "SegmentationClass", "JPEGImages", "ImageSets/Segmentation"
PNG_MASKS = "SegmentationClassPNG"  # of older versions of LabelMe, whose SegmentationClass holds arrays
LABEL_MAP, CLASS_NAMES = "labelmap.txt", "class_names.txt"
BORDER = 255


class Listed(NamedTuple):
    """A mask in the layout of VOC: its path in the folder without a suffix, its file, its base folder, and its split."""

    name: str
    mask: str
    base: str
    split: str | None


def recognize(tree: SourceTree) -> str | None:
    """Find the folders of images and masks, without a list of other classes."""
    for base in bases(tree):
        has_images = any(name.startswith(_join(base, IMAGES) + "/") for name in tree.files)
        if has_images and _join(base, LABEL_MAP) not in tree.files:
            return f"there are {_join(base, IMAGES)} and {_join(base, MASKS)}"
    return None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read the masks that the lists name, or all masks where there is no list."""
    notes = Notes()
    listed = options.classes or _own_list(tree)
    names = listed.names if listed is not None else LABEL_SPACE.names
    where = str(listed.path) if listed is not None else "PASCAL VOC's 21 classes"
    table = np.full(256, NO_MEANING, np.uint16)
    first = listed.first if listed is not None else 0
    stop = min(first + len(names), BORDER)
    table[first:stop] = np.arange(1, stop - first + 1)
    table[BORDER] = IGNORED
    own_colors = listed.colors if listed is not None else None
    colors = {voc_colors(256)[BORDER]: IGNORED}
    colors |= {color: value for value, color in enumerate(own_colors or voc_colors(stop)[first:], 1)}
    if own_colors is not None:
        where += " (leave its colors out if its lines count the numbers in the masks)"
    painter = functools.partial(voc_painter, table=table, colors=colors, where=where, by_colors=own_colors is not None)
    pictures, photographs = [], photographs_by_stem(tree)
    for item in list_masks(tree, notes):
        path = find_photograph(item, photographs)
        image = image_or_error(tree, path, f"{item.name}.jpg", tree.place(item.mask))
        pictures.append(Picture(path or item.mask, image, item.split, painter(tree, item.mask)))
    return Annotations(
        names, tuple(pictures), notes, void_meaning="the value 255 (border)", has_own_order=options.classes is not None
    )


def _own_list(tree: SourceTree) -> ClassList | None:
    """Return the list of classes beside the masks, whose first line names the value 0; None if there is none."""
    places = (_join(base, CLASS_NAMES) for base in bases(tree))
    return next((read_class_list(tree.root / place) for place in places if tree.has(place)), None)


def voc_painter(
    tree: SourceTree, name: str, table: np.ndarray, colors: Mapping[Color, int], where: str, by_colors: bool
) -> Paint:
    """Return a `paint` of a mask whose indices, or else whose colors, name the classes; with `by_colors`, the colors go first."""

    def paint(height: int, width: int) -> np.ndarray:
        mask, place = read_mask(tree.read(name), tree.place(name)), tree.place(name)
        if mask.values is not None and (mask.colors is None or not by_colors):
            return to_class_map(mask.values, table, place)
        assert mask.colors is not None
        return colors_to_class_map(mask.colors, colors, where, place)

    return paint


def bases(tree: SourceTree) -> list[str]:
    """Return the folders that hold a folder of masks, with "" for the root."""
    folders = tree.folders_named(MASKS, PNG_MASKS)
    return list(dict.fromkeys(str(PurePosixPath(folder).parent) for folder in folders))


def _masks_of(tree: SourceTree, base: str) -> dict[str, str]:
    """Return the masks by their paths in their folder, without suffixes."""
    for folder in (_join(base, MASKS), _join(base, PNG_MASKS)):
        if found := tree.images(folder):
            return {str(PurePosixPath(name).relative_to(folder).with_suffix("")): name for name in found}
    return {}


def list_masks(tree: SourceTree, notes: Notes) -> list[Listed]:
    """List the masks, with the splits of the lists.

    Raises:
      UserError: if a list cannot be read, or names a picture for two splits.
    """
    found: list[Listed] = []
    for base in bases(tree):
        masks = _masks_of(tree, base)
        splits = _read_lists(tree, base, masks, notes)
        if not splits:
            found += [Listed(name, file, base, None) for name, file in masks.items()]
            continue
        for name, split in splits.items():
            if name in masks:
                found.append(Listed(name, masks[name], base, split))
            else:
                notes.add("listed picture without a mask", f"{tree.place(_join(base, LISTS))}: {name}")
        for name in masks.keys() - splits.keys():
            notes.add("mask that no list names", tree.place(masks[name]))
    return found


def _read_lists(tree: SourceTree, base: str, masks: Mapping[str, str], notes: Notes) -> dict[str, str | None]:
    """Return name → split for all lists; a list of both splits counts only for names that are in no other."""
    files = [name for name in tree.files_in(_join(base, LISTS)) if name.endswith(".txt")]
    splits: dict[str, str | None] = {}
    places: dict[str, str] = {}
    for file in sorted(files, key=lambda file: PurePosixPath(file).stem == "trainval"):
        stem = PurePosixPath(file).stem
        split = None if stem == "trainval" else split_of_word(stem)
        for number, line in enumerate(tree.text(file).splitlines(), 1):
            if not line.strip():
                continue
            name = _listed_name(line.strip(), masks)
            place = f"{tree.place(file)}, line {number}"
            if name in splits:
                if stem != "trainval" and splits[name] != split:
                    raise UserError(
                        f"{place}: {name} is already listed in {places[name]}: a picture belongs to one split"
                    )
                continue
            splits[name], places[name] = split, place
    return splits


def voc_colors(count: int) -> list[Color]:
    """Return the first colors of VOC's palette: the bits of the index, spread over the three channels."""
    colors = []
    for index in range(min(count, 256)):
        channels = [0, 0, 0]
        for position in range(8):
            for channel in range(3):
                channels[channel] |= (index >> 3 * position + channel & 1) << 7 - position
        colors.append((channels[0], channels[1], channels[2]))
    return colors


def _listed_name(line: str, masks: Mapping[str, str]) -> str:
    """Return the mask that a line of a list names: the whole line, the part in quotes, or the first word, perhaps with a suffix."""
    quoted = line.split('"')
    first = quoted[1] if len(quoted) == 3 else line.split()[0]
    for text in (line, first):
        for name in (text, str(PurePosixPath(text).with_suffix("")) if suffix_of(text) in IMAGE_SUFFIXES else text):
            if name in masks:
                return name
    return first


def photographs_by_stem(tree: SourceTree) -> dict[str, list[str]]:
    """Return the images outside the folders of masks, by the stems of their names."""
    found: dict[str, list[str]] = {}
    for name in tree.images():
        path = PurePosixPath(name)
        if not any(part.startswith("Segmentation") for part in path.parts):
            found.setdefault(comparable(path.stem), []).append(name)
    return found


def find_photograph(item: Listed, photographs: Mapping[str, Sequence[str]]) -> str | None:
    """Find the photograph of a mask: in `JPEGImages`, or else the only one whose path ends like that of the mask.

    Args:
      item: the mask.
      photographs: see `photographs_by_stem`.
    """
    wanted = comparable(item.name)
    near = photographs.get(PurePosixPath(wanted).name, ())
    plain = {name: comparable(str(PurePosixPath(name).with_suffix(""))) for name in near}
    expected = [name for name, path in plain.items() if path == comparable(_join(item.base, f"{IMAGES}/{item.name}"))]
    if expected:
        return min(expected, key=lambda name: not name.endswith(".jpg"))
    found = [name for name, path in plain.items() if f"/{path}".endswith(f"/{wanted}")]
    return found[0] if len(found) == 1 else None


def _join(base: str, name: str) -> str:
    return name if base in ("", ".") else f"{base}/{name}"


FORMAT = Format(
    "pascal_voc",
    "PASCAL VOC: palette masks and lists of names",
    recognize,
    read,
)
