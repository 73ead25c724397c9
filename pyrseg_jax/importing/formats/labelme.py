"""Read LabelMe's JSON files, one for each picture: polygons, rectangles, circles, lines, points, and masks.

Shapes are painted as in LabelMe's own converter: by Pillow, in the order of the file. Lines are 10 pixels wide, and points have a
radius of 5 pixels. X-AnyLabeling writes rectangles, turned (`rotation`) or not, by their four corners. If there is a
`labels.txt`, it gives the classes in order; `__ignore__` is void, and `_background_` takes the pixels without a label.

Source: the LabelMe project, `labelme2voc` and `shape_to_mask`.
"""

import base64
import functools
import json
import math
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BACKGROUND, BY_FILE, IGNORED, Annotations, Notes, Options
from pyrseg_jax.importing.class_list import read_class_list
from pyrseg_jax.importing.fields import list_of, points_of, side_of, text_of
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_images import read_mask
from pyrseg_jax.importing.object_pictures import ObjectPicture, finish_all, image_or_error
from pyrseg_jax.importing.objects import Object, part_of
from pyrseg_jax.importing.other_files import OTHER_KIND, read_json_or_pass
from pyrseg_jax.importing.outlines import outline_of
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path
from pyrseg_jax.shapes.polygons import Part
from pyrseg_jax.storage.documents import shorten

LINE_PX, POINT_PX = 10, 5  # as in LabelMe
IGNORE = "__ignore__"
KEYS = ("shapes", "imagePath", "imageData")
_FEWEST = {
    "polygon": 0,  # `outlines.outline_of` counts those of too few points
    "rotation": 0,
    "rectangle": 2,
    "circle": 2,
    "line": 2,
    "linestrip": 2,
    "point": 1,
    "points": 1,
    "mask": 2,
}
_EXACT = {"rectangle": 2, "circle": 2, "line": 2, "point": 1, "mask": 2}


def is_labelme(document: Any) -> bool:
    """Tell whether a document is one of LabelMe's files."""
    return isinstance(document, dict) and "shapes" in document and ("imagePath" in document or "imageData" in document)


def recognize(tree: SourceTree) -> str | None:
    """Find a JSON file with shapes and the path of an image."""
    for name in tree.first_jsons():
        if is_labelme(tree.peek(name)):
            return f"{name} has shapes and imagePath"
    return None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read each JSON file of LabelMe below the root."""
    notes, pictures, used = Notes(), [], set()
    order = _class_order(tree, options)
    seen: dict[str, None] = {}
    for name in tree.annotation_files(".json"):
        document = read_json_or_pass(tree, name, KEYS, notes)
        if document is None:
            continue
        if not is_labelme(document):
            notes.add(OTHER_KIND, tree.place(name))
            continue
        picture, labels = _read_file(tree, name, document)
        used.add(picture.name)
        seen |= labels
        pictures.append((picture, {"shapes": document["shapes"]}, name))  # an embedded photograph takes much memory
    if not pictures:
        raise UserError(f"{tree.place('')} has no JSON file with shapes and imagePath")
    names = order if order is not None else tuple(sorted(name for name in seen if name != IGNORE))
    values = {name: value for value, name in enumerate(names, 1)} | {IGNORE: IGNORED}
    for picture, document, name in pictures:
        try:
            picture.objects += _objects(document, tree.place(name), values, order is not None, notes)
        except UserError as error:
            picture.error = error
    folders = {PurePosixPath(name).parent for name in used}
    for name in tree.images():
        if name not in used and PurePosixPath(name).parent in folders:
            notes.add("image without a JSON file", tree.place(name))
    finished = finish_all([picture for picture, *_ in pictures], options, BACKGROUND, BY_FILE, notes)
    return Annotations(names, finished, notes, BACKGROUND)


def _class_order(tree: SourceTree, options: Options) -> tuple[str, ...] | None:
    """Return the classes of `labels.txt`, without `__ignore__`; None if there is no such list."""
    found = [name for name in tree.files if PurePosixPath(name).name == "labels.txt"]
    if not found:
        return None
    return tuple(name for name in read_class_list(tree.root / min(found, key=len)).names if name != IGNORE)


def _read_file(tree: SourceTree, name: str, document: Any) -> tuple[ObjectPicture, dict[str, None]]:
    """Return the picture of a JSON file, without its objects, and the labels that occur in it."""
    place = tree.place(name)
    labels = {
        text_of(shape, "label", f"{place}: shapes[{i}]").strip(): None
        for i, shape in enumerate(list_of(document, "shapes", place))
    }
    size = None
    if document.get("imageHeight") is not None:
        size = side_of(document, "imageHeight", place), side_of(document, "imageWidth", place)
    wanted = document.get("imagePath") or f"{PurePosixPath(name).stem}.jpg"
    if not isinstance(wanted, str):
        raise UserError(f"{place} has imagePath={shorten(wanted)}: expected a text")
    path = tree.find_image(wanted, [str(PurePosixPath(name).parent)])
    if path is None and document.get("imageData"):
        image = functools.partial(_embedded, tree, name)
        return ObjectPicture(f"{PurePosixPath(name).with_suffix('')}", image, split_of_path(name), size, place), labels
    source = image_or_error(tree, path, wanted, place)
    return ObjectPicture(path or wanted, source, split_of_path(str(PurePosixPath(name).parent)), size, place), labels


def _embedded(tree: SourceTree, name: str) -> bytes:
    try:
        return base64.b64decode(json.loads(tree.read(name))["imageData"], validate=True)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{tree.place(name)}: its imageData is not base64 ({error}); put the photograph beside the file"
        ) from error


def _objects(document: Any, place: str, values: dict[str, int], is_listed: bool, notes: Notes) -> list[Object]:
    objects = []
    for i, shape in enumerate(document["shapes"]):
        where, label = f"{place}: shapes[{i}]", shape["label"].strip()
        if label not in values:
            known = "labels.txt" if is_listed else "the labels"
            raise UserError(
                f"{where} has the label {label!r}, which is not in {known}: add it there, or correct the label"
            )
        kind = shape.get("shape_type") or "polygon"
        if kind not in _FEWEST:
            raise UserError(f"{where} has shape_type={shorten(kind)}: expected one of {', '.join(_FEWEST)}")
        points = points_of(list_of(shape, "points", where), where, _FEWEST[kind])
        if kind == "rotation" or (kind == "rectangle" and len(points) == 4):
            kind = "polygon"
        if kind == "polygon" and outline_of(points, where, notes, has_lines=True) is None:
            continue
        if kind in _EXACT and len(points) != _EXACT[kind]:
            raise UserError(f"{where} is a {kind} with {len(points)} points: expected {_EXACT[kind]}")
        inside = functools.partial(_paste, shape.get("mask"), points, where) if kind == "mask" else None
        objects.append(Object(values[label], inside or functools.partial(_draw, kind, points), where))
    return objects


def _draw(kind: str, points: np.ndarray, height: int, width: int) -> Part:
    """Draw a shape as LabelMe's converter does."""
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    limit = 10 * max(height, width)
    if np.abs(points).max() > limit:
        raise ValueError(
            f"the coordinate {np.abs(points).max():g} lies far outside the picture of {width} × {height} pixels"
        )
    xy = [(float(x), float(y)) for x, y in points]
    if kind == "circle":
        (x, y), edge = xy
        radius = math.dist((x, y), edge)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=1, fill=1)
    elif kind == "rectangle":
        (left, right), (top, bottom) = (sorted(values) for values in zip(*xy, strict=True))
        draw.rectangle([left, top, right, bottom], outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        draw.line(xy, fill=1, width=LINE_PX)
    elif kind in ("point", "points"):
        for x, y in xy:
            draw.ellipse([x - POINT_PX, y - POINT_PX, x + POINT_PX, y + POINT_PX], outline=1, fill=1)
    else:
        draw.polygon(xy, outline=1, fill=1)
    return part_of(np.asarray(image).astype(bool))


def _paste(text: Any, points: np.ndarray, where: str, height: int, width: int) -> Part:
    """Paste an embedded mask between its two corners."""
    if not isinstance(text, str):
        raise ValueError("a mask without its picture (the key mask)")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"its mask is not base64 ({error})") from error
    values = read_mask(data, f"the mask of {where}").values
    if values is None:
        raise ValueError("its mask has colors: expected one number per pixel")
    left, top = np.trunc(points[0]).astype(int)
    rows, columns = values.shape
    if left < 0 or top < 0 or top + rows > height or left + columns > width:
        raise ValueError(f"its mask of {columns} × {rows} pixels at ({left}, {top}) does not fit into the picture")
    return Part(int(top), int(left), values > 0)


FORMAT = Format(
    "labelme",
    "LabelMe JSON, one file for each picture",
    recognize,
    read,
    has_file=True,
)
