"""Read Label Studio's JSON export: brush strokes, polygons, rectangles and ellipses.

Coordinates are percentages of the picture. A brush stroke is the alpha channel of an RGBA picture, run-length encoded as by the
library rle-pack. The header holds the number of values (32 bits), the bits of a value minus one (5), and four lengths minus one (4
bits each). Groups follow, each with a bit that says whether one value is repeated, two bits that choose one of the lengths, the
count minus one as a number of that length, and then the one value, or all values.

Source: Label Studio's documentation, "Export annotations", and the project label-studio-converter, `brush.py`.
"""

import re
import urllib.parse
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pyrseg_jax.data.images.image_formats import IMAGE_SUFFIXES
from pyrseg_jax.data.listing import suffix_of
from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BACKGROUND, BY_FILE, Annotations, Notes, Options
from pyrseg_jax.importing.fields import list_of, number_from, side_of, value_of
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.object_pictures import ObjectPicture, finish_all, image_or_error
from pyrseg_jax.importing.objects import Fill, Object, box_ring, ellipse_ring, part_of, polygon_filler, turned_ring
from pyrseg_jax.importing.other_files import OTHER_KIND, read_json_or_pass
from pyrseg_jax.importing.outlines import outline_of
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path
from pyrseg_jax.storage.documents import shorten

_KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")
# Where a project has the tags `Brush`, `Polygon`, … and `Labels`, a region has two results: one of its shape, and a second one of
# the type "labels" with the shape and the labels. This key of the value tells what shape it is.
_SHAPE_KEYS = {"rle": "brushlabels", "points": "polygonlabels", "radiusX": "ellipselabels", "width": "rectanglelabels"}
_SHAPES = ("brush", "polygon", "rectangle", "ellipse")
_IMAGE_KEYS = ("image", "img", "url", "captioning", "ocr")
KEYS = ("data", "annotations")  # of a task
NO_LABEL = "region without a label"
_CHANNELS = 4  # of the picture that brush strokes are stored as; the last one is the opacity


def recognize(tree: SourceTree) -> str | None:
    """Find a JSON list of tasks with data and annotations."""
    for name in tree.first_jsons():
        if _is_tasks(tree.peek(name)):
            return f"{name} is a list of tasks with data and annotations"
    return None


def _is_tasks(document: Any) -> bool:
    first = document[0] if isinstance(document, list) and document else None
    return (
        isinstance(first, dict)
        and isinstance(first.get("data"), dict)
        and ("annotations" in first or "completions" in first)
    )


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read all exports below the root. Of several annotations of a task, the first that was not cancelled counts."""
    notes, values, pictures = Notes(), {}, []
    for name in tree.annotation_files(".json"):
        document = read_json_or_pass(tree, name, (*KEYS[1:], "completions"), notes)
        if document is None:
            continue
        if not _is_tasks(document):
            notes.add(OTHER_KIND, tree.place(name))
            continue
        for i, task in enumerate(document):
            picture = _read_task(tree, task, f"{tree.place(name)}: task {i}", PurePosixPath(name).parent, values, notes)
            if picture is not None:
                pictures.append(picture)
    if not values:
        raise UserError(
            f"{tree.place('')} has no task with regions: expected a JSON export with brush, polygon, rectangle or ellipse labels"
        )
    return Annotations(tuple(values), finish_all(pictures, options, BACKGROUND, BY_FILE, notes), notes, BACKGROUND)


def _read_task(
    tree: SourceTree, task: Any, where: str, folder: PurePosixPath, values: dict[str, int], notes: Notes
) -> ObjectPicture | None:
    data = value_of(task, "data", where, dict, "an object")
    key = "annotations" if "annotations" in task else "completions"
    annotations = [
        item for item in list_of(task, key, where) if isinstance(item, dict) and not item.get("was_cancelled")
    ]
    if task.get("predictions"):
        notes.add("prediction of a model, not a person's annotation", where, len(task["predictions"]))
    if not annotations:
        notes.add("task without a finished annotation", where)
        return None
    if len(annotations) > 1:
        notes.add("further annotation of a task (the first counts)", where, len(annotations) - 1)
    wanted, folders = _image_name(data, where), [str(folder / "images"), str(folder)]
    path = next((found for name in wanted if (found := tree.find_image(name, folders))), None)
    source = image_or_error(tree, path, wanted[0], where)
    split = split_of_path(str(PurePosixPath(path or wanted[0]).parent))
    picture = ObjectPicture(path or wanted[0], source, split, place=where)
    try:
        results = list_of(annotations[0], "result", where)
        labeled = {
            result.get("id") for result in results if isinstance(result, dict) and result.get("type") == "labels"
        }
        for i, result in enumerate(results):
            place = f"{where}, result {i}"
            if isinstance(result, dict) and result.get("type") in _SHAPES:
                if result.get("id") not in labeled:
                    notes.add(NO_LABEL, place)
                continue
            _add(picture, result, place, values, notes)
    except UserError as error:
        picture.error = error
    return picture


def _image_name(data: dict, where: str) -> list[str]:
    """Return the names under which the image may be found: without the server's address and the prefix of uploads."""
    texts = [data[key] for key in _IMAGE_KEYS if isinstance(data.get(key), str)]
    texts += [value for value in data.values() if isinstance(value, str)]
    text = next(
        (text for text in texts if {suffix_of(urllib.parse.urlsplit(text).path), suffix_of(text)} & {*IMAGE_SUFFIXES}),
        None,
    )
    text = text or next(iter(texts), None)
    if not text:
        raise UserError(f"{where} has data without the name of an image: export the project as JSON")
    if text.startswith("data:"):
        raise UserError(
            f"{where} holds its image in the text ({shorten(text)}): expected the name of a file; save the image, and name it there"
        )
    parts = urllib.parse.urlsplit(text)
    query = urllib.parse.parse_qs(parts.query).get("d")
    name = urllib.parse.unquote(query[0] if query else parts.path or text)
    plain = re.sub(r"^[0-9a-f]{8}-", "", PurePosixPath(name).name)
    return list(dict.fromkeys([name, PurePosixPath(name).name, plain]))


def _add(picture: ObjectPicture, result: Any, where: str, values: dict[str, int], notes: Notes) -> None:
    kind = labels_key = result.get("type") if isinstance(result, dict) else None
    if kind == "labels" and isinstance(result.get("value"), dict):
        kind = next((shape for key, shape in _SHAPE_KEYS.items() if key in result["value"]), kind)
    if kind not in _KINDS:
        notes.add(f"{kind or 'result'} (not a region)", where)
        return
    if result.get("image_rotation"):
        raise UserError(
            f"{where} was drawn on a picture turned by {result['image_rotation']} degrees: turn the file, and export again"
        )
    value = value_of(result, "value", where, dict, "an object")
    labels = [label for label in value.get(labels_key) or [] if isinstance(label, str) and label.strip()]
    if not labels:
        notes.add(NO_LABEL, where)
        return
    if len(labels) > 1:
        notes.add("further label of a region (the first counts)", where, len(labels) - 1)
    size = side_of(result, "original_height", where), side_of(result, "original_width", where)
    if picture.size is not None and picture.size != size:
        raise UserError(
            f"{where} is for a picture of {size[1]} × {size[0]} pixels, others of {picture.size[1]} × {picture.size[0]}"
        )
    picture.size = size
    number = values.setdefault(labels[0].strip(), len(values) + 1)
    fill = _filler(kind, value, size, where, notes)
    if fill is not None:
        picture.objects.append(Object(number, fill, where))


def _filler(kind: str, value: dict, size: tuple[int, int], where: str, notes: Notes) -> Fill | None:
    """Return the `fill` of a region, or None for a polygon that encloses no area."""
    height, width = size
    if kind == "brushlabels":
        if value.get("format", "rle") != "rle":
            raise UserError(f"{where} has format={shorten(value['format'])}: expected rle")
        data = list_of(value, "rle", where)
        return lambda height, width: part_of(_brush_mask(data, height, width))

    def number(name: str) -> float:
        return number_from(value.get(name, 0 if name == "rotation" else None), where, name) / 100

    if kind == "polygonlabels":
        ring = outline_of(list_of(value, "points", where), where, notes)
        return None if ring is None else polygon_filler([ring * (width / 100, height / 100)])
    x, y = number("x") * width, number("y") * height
    degrees = number("rotation") * 100
    if kind == "rectanglelabels":  # turned around its upper left corner
        ring = box_ring(x, y, x + number("width") * width, y + number("height") * height)
    else:
        ring = ellipse_ring(x, y, number("radiusX") * width, number("radiusY") * height)
    return polygon_filler([turned_ring(ring, degrees, (x, y))])


def _brush_mask(data: list, height: int, width: int) -> np.ndarray:
    try:
        array = np.array(data, np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError("its rle is not a list of bytes") from error
    if array.ndim != 1 or not array.size or array.min() < 0 or array.max() > 255:
        raise ValueError("its rle is not a list of bytes")
    values = decode_brush(array.astype(np.uint8))
    if values.size != height * width * _CHANNELS:
        raise ValueError(
            f"its rle holds {values.size} values, but {width} × {height} pixels need {height * width * _CHANNELS}"
        )
    return values.reshape(height, width, _CHANNELS)[..., -1] > 0


def decode_brush(data: np.ndarray) -> np.ndarray:
    """Return the values that a brush stroke's bytes hold.

    Raises:
      ValueError: if the bytes end too early, or claim more values than any picture has.
    """
    bits = np.unpackbits(data)
    position = 0

    def read(length: int, count: int = 1) -> np.ndarray:
        nonlocal position
        if position + length * count > bits.size:
            raise ValueError("its rle is cut off")
        part = bits[position : position + length * count].reshape(count, length)
        position += length * count
        return part.astype(np.int64) @ (1 << np.arange(length - 1, -1, -1, dtype=np.int64))

    total, word = int(read(32)[0]), int(read(5)[0]) + 1
    lengths = [int(read(4)[0]) + 1 for _ in range(4)]
    if total > 2**31 or word > 16:
        raise ValueError(f"its rle claims {total} values of {word} bits")
    parts, found = [], 0
    while found < total:
        is_repeated, choice = int(read(1)[0]), int(read(2)[0])
        count = int(read(lengths[choice])[0]) + 1
        if found + count > total:
            raise ValueError("its rle holds more values than it claims")
        parts.append(np.repeat(read(word), count) if is_repeated else read(word, count))
        found += count
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


FORMAT = Format(
    "label_studio",
    "Label Studio JSON: brush, polygon, rectangle, ellipse",
    recognize,
    read,
    has_file=True,
)
