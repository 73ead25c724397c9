"""What can be broken in the source of an import: a few ways to damage files, and what the one line must say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from support import label_tools
from support.label_tools import Scenes, png


class Broken(NamedTuple):
    """A broken source.

    write: how the source is written. damage: what is broken in its folder. message: a pattern of the line. options: of the import.
    """

    write: Callable[[Scenes, Path], None]
    damage: Callable[[Path], Any]
    message: str
    options: dict = {}  # noqa: RUF012 (never changed)


def json_file(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Return a damage that changes a JSON document in place, or replaces it by what the change returns."""

    def damage(root: Path) -> None:
        path = root / name
        document = json.loads(path.read_text())
        changed = change(document)
        path.write_text(json.dumps(document if changed is None else changed))

    return damage


def text_file(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return damage


def content(name: str, data: bytes) -> Callable[[Path], Any]:
    return lambda root: label_tools.write(root / name, data)


def cut(name: str) -> Callable[[Path], Any]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[: (root / name).stat().st_size // 2])


def gone(name: str) -> Callable[[Path], Any]:
    return lambda root: (root / name).unlink()


def first_annotation(**changes: Any) -> Callable[[Path], None]:
    return json_file(TRAIN, lambda d: d["annotations"][0].update(changes))


def first_shape(**changes: Any) -> Callable[[Path], None]:
    return json_file("train/picture_0.json", lambda d: d["shapes"][0].update(changes))


def first_result(**changes: Any) -> Callable[[Path], None]:
    return json_file("project.json", lambda d: d[0]["annotations"][0]["result"][0].update(changes))


def gray_mask(values: list[int], size: tuple[int, int] = (24, 28)) -> bytes:
    return png(np.resize(np.array(values, np.uint8), size))


def jpeg(path: Path) -> None:
    Image.open(path).convert("RGB").save(path, "JPEG")


TRAIN = "annotations/instances_train2017.json"


def add_polygon(root: Path, points: list[list[float]]) -> None:
    """Add a polygon, in pixels, to the first picture of a source in any format of objects, as its last object."""
    flat = [number for point in points for number in point]
    if (root / TRAIN).exists():
        json_file(
            TRAIN,
            lambda d: d["annotations"].append(d["annotations"][0] | {"id": 999, "segmentation": [flat], "bbox": []}),
        )(root)
    elif (root / "train/picture_0.json").exists():
        first = {"label": "grass", "shape_type": "polygon", "points": points}
        json_file("train/picture_0.json", lambda d: d["shapes"].append(first))(root)
    elif (root / "data.yaml").exists():
        path = root / "labels/train/picture_0.txt"
        shares = " ".join(str(number / side) for point in points for number, side in zip(point, (28, 24), strict=True))
        path.write_text(f"{path.read_text()}1 {shares}\n")
    elif (root / "project.json").exists():
        shares = [[100 * x / 28, 100 * y / 24] for x, y in points]
        region = {"points": shares, "polygonlabels": ["grass"]}

        def add(document: Any) -> None:
            results = document[0]["annotations"][0]["result"]
            results.append(results[0] | {"value": region})

        json_file("project.json", add)(root)
    else:
        text = ";".join(f"{x},{y}" for x, y in points)
        text_file("annotations.xml", "</image>", f'<polygon label="grass" points="{text}" z_order="99"/></image>')(root)
