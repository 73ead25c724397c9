"""Read CVAT's export "CVAT for images 1.1": polygons, boxes, ellipses and masks in XML.

Objects with a higher `z_order` cover others; with the same one, later objects of the file cover earlier ones. A task's subsets
are the splits.

Source: CVAT's documentation, "XML annotation format".
"""

import xml.etree.ElementTree as ElementTree
from pathlib import PurePosixPath

import numpy as np

from pyrseg_jax.errors import UserError, first_line
from pyrseg_jax.importing.annotations import BACKGROUND, BY_FILE, IGNORED, Annotations, Notes, Options
from pyrseg_jax.importing.fields import MAX_SIDE, number_from
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.object_pictures import EMPTY, ObjectPicture, finish_all, image_or_error
from pyrseg_jax.importing.objects import Fill, Object, box_ring, ellipse_ring, polygon_filler, turned_ring
from pyrseg_jax.importing.outlines import outline_of
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path, split_of_word
from pyrseg_jax.shapes.polygons import Part
from pyrseg_jax.storage.documents import shorten

_NO_REGIONS = ("polyline", "points", "cuboid", "skeleton", "tag")
_REGIONS = ("polygon", "box", "ellipse", "mask")
UNNAMED = "object without a label (its region became void)"


def recognize(tree: SourceTree) -> str | None:
    """Find an XML file whose root is `annotations`."""
    for name in tree.annotation_files(".xml")[:12]:
        try:
            if "<annotations" in tree.text(name)[:1000]:
                return f"{name} begins with <annotations>"
        except UserError as error:
            tree.problems.append(str(error))
    return None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read all XML files of CVAT below the root."""
    notes, values, pictures = Notes(), {}, []
    for name in tree.annotation_files(".xml"):
        root = _parse(tree, name)
        if root.tag != "annotations":
            notes.add("XML file of another kind", tree.place(name))
            continue
        if root.find("track") is not None and root.find("image") is None:
            raise UserError(
                f"{tree.place(name)} is CVAT's format for videos, which has no pictures: export it as 'CVAT for images 1.1' or as "
                "'Segmentation mask 1.1'"
            )
        for label in root.iterfind("meta//labels/label"):
            text = label.findtext("name", "").strip()
            if text and label.findtext("type", "any") not in _NO_REGIONS and label.find("parent") is None:
                values.setdefault(text, len(values) + 1)
        pictures += [_read_image(tree, name, image, values, notes) for image in root.iterfind("image")]
    labeled = []
    for picture in pictures:
        if picture.objects or picture.error is not None:
            labeled.append(picture)
        else:
            notes.add(EMPTY, picture.name)
    finished = finish_all(labeled, options, BACKGROUND, BY_FILE, notes)
    return Annotations(tuple(values), finished, notes, BACKGROUND)


def _parse(tree: SourceTree, name: str) -> ElementTree.Element:
    data = tree.read(name)
    if b"<!ENTITY" in data or b"<!DOCTYPE" in data:
        raise UserError(
            f"{tree.place(name)} declares a document type or entities, which CVAT does not write: export it again"
        )
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f"{tree.place(name)} is not XML ({first_line(error)}): it may be cut off; export it again"
        ) from error


def _read_image(
    tree: SourceTree, file: str, image: ElementTree.Element, values: dict[str, int], notes: Notes
) -> ObjectPicture:
    name = image.get("name", "")
    place = f"{tree.place(file)}: image {name!r}"
    if not name.strip():
        raise UserError(f"{tree.place(file)} has an image without a name: export it again")
    size = (_side(image, "height", place), _side(image, "width", place))
    subset = image.get("subset")
    split = split_of_word(subset) if subset else split_of_path(file)
    inner = [f"images/{subset}", str(subset), "images", "."] if subset else ["images", "."]
    folders = [str(PurePosixPath(file).parent / folder) for folder in inner] + inner
    path = tree.find_image(name, folders)
    picture = ObjectPicture(path or name, image_or_error(tree, path, name, place), split, size, place)
    try:
        for i, element in enumerate(image):
            _add(picture, element, values, f"{place}, object {i} ({element.tag})", notes)
    except UserError as error:
        picture.error = error
    return picture


def _add(
    picture: ObjectPicture, element: ElementTree.Element, values: dict[str, int], where: str, notes: Notes
) -> None:
    if element.tag in _NO_REGIONS:
        notes.add(f"{element.tag} (not a region)", where)
        return
    if element.tag not in _REGIONS:
        raise UserError(f"{where} is not known: expected one of {', '.join((*_REGIONS, *_NO_REGIONS))}")
    label = element.get("label", "").strip()
    value = IGNORED
    if label:
        value = values.setdefault(label, len(values) + 1)
    else:
        notes.add(UNNAMED, where)
    layer = int(number_from(element.get("z_order", "0"), where, "z_order"))
    fill = _filler(element, where, notes)
    if fill is not None:
        picture.objects.append(Object(value, fill, where, layer))


def _filler(element: ElementTree.Element, where: str, notes: Notes) -> Fill | None:
    """Return the `fill` of an object, or None for a polygon that encloses no area."""

    def number(name: str) -> float:
        return number_from(element.get(name), where, name)

    degrees = number("rotation") if element.get("rotation") else 0.0
    if element.tag == "mask":
        left, top, width, height = (int(number(name)) for name in ("left", "top", "width", "height"))
        return _mask_filler(element.get("rle", ""), left, top, height, width, where)
    if element.tag == "box":
        left, top, right, bottom = (number(name) for name in ("xtl", "ytl", "xbr", "ybr"))
        center = ((left + right) / 2, (top + bottom) / 2)
        return polygon_filler([turned_ring(box_ring(left, top, right, bottom), degrees, center)])
    if element.tag == "ellipse":
        x, y, radius_x, radius_y = (number(name) for name in ("cx", "cy", "rx", "ry"))
        return polygon_filler([turned_ring(ellipse_ring(x, y, radius_x, radius_y), degrees, (x, y))])
    text = element.get("points", "")
    pairs = [
        [number_from(cell, where, "points") for cell in pair.split(",")] for pair in text.split(";") if pair.strip()
    ]
    ring = outline_of(pairs, where, notes)
    return None if ring is None else polygon_filler([ring])


def _mask_filler(text: str, left: int, top: int, rows: int, columns: int, where: str):
    """Return the `fill` of a mask: runs along the rows of its box, beginning with zeros."""
    try:
        runs = np.array([int(cell) for cell in text.split(",")], np.int64)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{where} has rle={shorten(text)}: expected whole numbers with commas") from error

    def fill(height: int, width: int) -> Part:
        if runs.min() < 0 or runs.max() > rows * columns or runs.sum() != rows * columns:
            raise ValueError(f"its runs have {sum(map(int, runs))} pixels, but its box has {columns} × {rows}")
        if left < 0 or top < 0 or top + rows > height or left + columns > width:
            raise ValueError(f"its box of {columns} × {rows} pixels at ({left}, {top}) does not fit into the picture")
        switches = np.zeros(len(runs), bool)
        switches[1::2] = True
        return Part(top, left, np.repeat(switches, runs).reshape(rows, columns))

    return fill


def _side(image: ElementTree.Element, name: str, place: str) -> int:
    value = number_from(image.get(name), place, name)
    if not value.is_integer() or not 1 <= value <= MAX_SIDE:
        raise UserError(f"{place} has {name}={image.get(name)}: expected a number of pixels from 1 to {MAX_SIDE}")
    return int(value)


FORMAT = Format(
    "cvat_xml",
    "CVAT for images: polygons, boxes and masks in XML",
    recognize,
    read,
    has_file=True,
)
