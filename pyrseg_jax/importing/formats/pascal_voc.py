"""Read masks in the layout of PASCAL VOC: `JPEGImages`, `SegmentationClass`, and lists of names in `ImageSets/Segmentation`.

A mask is a palette PNG, where index i stands for class i, or an RGB image in VOC's colors. 0 is the background. 255 is the border
between objects, which becomes void.

Source: Everingham et al., *The PASCAL Visual Object Classes Challenge 2012 Development Kit*, section 3.3.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from pyrseg_jax.data.datasets.pascal_voc import LABEL_SPACE
from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import IGNORED, Annotations, Notes, Options, Paint, Picture
from pyrseg_jax.importing.class_list import Color
from pyrseg_jax.importing.color_maps import colors_to_class_map
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_images import NO_MEANING, read_mask, to_class_map
from pyrseg_jax.importing.object_pictures import image_or_error
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_word

MASKS, IMAGES, LISTS = "SegmentationClass", "JPEGImages", "ImageSets/Segmentation"
LABEL_MAP = "labelmap.txt"
BORDER = 255


class Listed(NamedTuple):
    """A mask in the layout of VOC: its name without a suffix, its file, its base folder, and its split."""

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
    names = options.classes.names if options.classes is not None else LABEL_SPACE.names
    where = str(options.classes.path) if options.classes is not None else "PASCAL VOC's 21 classes"
    table = np.full(256, NO_MEANING, np.uint16)
    table[: min(len(names), BORDER)] = np.arange(1, min(len(names), BORDER) + 1)
    table[BORDER] = IGNORED
    colors = {color: value for value, color in enumerate(voc_colors(len(names)), 1)} | {
        voc_colors(256)[BORDER]: IGNORED
    }
    pictures = []
    for item in list_masks(tree, notes):
        path = tree.find_image(f"{item.name}.jpg", [_join(item.base, IMAGES)]) or _any_suffix(tree, item)
        image = image_or_error(tree, path, f"{item.name}.jpg", tree.place(item.mask))
        pictures.append(
            Picture(path or item.mask, image, item.split, voc_painter(tree, item.mask, table, colors, where))
        )
    return Annotations(
        names, tuple(pictures), notes, void_meaning="the value 255 (border)", has_own_order=options.classes is not None
    )


def voc_painter(tree: SourceTree, name: str, table: np.ndarray, colors: Mapping[Color, int], where: str) -> Paint:
    """Return a `paint` of a mask whose indices, or else whose colors, name the classes."""

    def paint(height: int, width: int) -> np.ndarray:
        mask, place = read_mask(tree.read(name), tree.place(name)), tree.place(name)
        if mask.values is not None:
            return to_class_map(mask.values, table, place)
        assert mask.colors is not None
        return colors_to_class_map(mask.colors, colors, where, place)

    return paint


def bases(tree: SourceTree) -> list[str]:
    """Return the folders that hold a folder of masks, with "" for the root."""
    return [str(PurePosixPath(folder).parent) for folder in tree.folders_named(MASKS)]


def list_masks(tree: SourceTree, notes: Notes) -> list[Listed]:
    """List the masks, with the splits of the lists.

    Raises:
      UserError: if a list cannot be read, or names a picture for two splits.
    """
    found: list[Listed] = []
    for base in bases(tree):
        masks = {PurePosixPath(name).stem: name for name in tree.images(_join(base, MASKS))}
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
            name = line.split()[0] if line.strip() else ""
            if not name:
                continue
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


def _any_suffix(tree: SourceTree, item: Listed) -> str | None:
    images: Sequence[str] = [
        name
        for name in tree.images()
        if PurePosixPath(name).stem == item.name
        and f"/{MASKS}/" not in f"/{name}"
        and "/Segmentation" not in f"/{name}"
    ]
    return images[0] if len(images) == 1 else None


def _join(base: str, name: str) -> str:
    return name if base in ("", ".") else f"{base}/{name}"


FORMAT = Format(
    "pascal_voc",
    "PASCAL VOC: palette masks and lists of names",
    f"the folders {IMAGES} and {MASKS}",
    recognize,
    read,
)
