"""Predictions as annotations that label tools and maps read: COCO, GeoJSON, LabelMe."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt

from pyrseg_jax.conventions import void_of
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.shapes.polygons import trace_polygons
from pyrseg_jax.shapes.rle import compress_runs, encode_runs

LABELME_VERSION = "5.5.0"  # whose fields these are
Labels = UInt[np.ndarray, "h w"]
Point = Callable[[float, float], tuple[float, float]]


def coco(labels: Labels, label_space: LabelSpace, file_name: str) -> bytes:
    """Return a COCO document of one image: one annotation per class that occurs, as compressed RLE.

    The categories have the values of the label files as their ids.
    """
    height, width = labels.shape
    annotations = []
    for train_id in _present(labels):
        mask = labels == train_id
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": 1,
                "category_id": label_space.file_ids[train_id],
                "segmentation": {"size": [height, width], "counts": compress_runs(encode_runs(mask))},
                "area": int(mask.sum()),
                "bbox": [int(value) for value in box],
                "iscrowd": 0,
            }
        )
    return _json(
        {
            "images": [{"id": 1, "file_name": file_name, "height": height, "width": width}],
            "categories": [
                {"id": file_id, "name": name} for name, file_id in zip(label_space.names, label_space.file_ids)
            ],
            "annotations": annotations,
        }
    )


def geojson(
    labels: Labels, label_space: LabelSpace, file_name: str, point: Point | None = None, crs: str | None = None
) -> bytes:
    """Return a GeoJSON document: one feature per region of one class, as a polygon with holes.

    Args:
      labels: (H, W) train ids.
      label_space: the classes.
      file_name: name of the image.
      point: (x, y) in pixels → coordinates on the map; None keeps pixels: x to the right, y down, (0, 0) is the upper left corner
        of the image.
      crs: name of the coordinate system of the map.
    """
    features = []
    for train_id in _present(labels):
        for polygon in trace_polygons(labels == train_id):
            area = abs(_area(polygon.outer)) - sum(abs(_area(hole)) for hole in polygon.holes)
            rings = [_ring(polygon.outer, point, True), *(_ring(hole, point, False) for hole in polygon.holes)]
            about = {"class": label_space.names[train_id], "value": label_space.file_ids[train_id]}
            geometry = {"type": "Polygon", "coordinates": rings}
            features.append({"type": "Feature", "properties": about | {"area_px": int(area)}, "geometry": geometry})
    document: dict[str, Any] = {"type": "FeatureCollection", "name": file_name}
    if crs is not None:
        document["crs"] = {"type": "name", "properties": {"name": crs}}
    return _json(document | {"features": features})


def labelme(labels: Labels, label_space: LabelSpace, image_path: str) -> bytes:
    """Return a LabelMe document: the outer ring of each region, larger ones first.

    LabelMe's polygons have no holes. Painted in this order, the regions inside a hole cover it: the label map comes back exactly.

    Args:
      labels: (H, W) train ids.
      label_space: the classes.
      image_path: path of the image, relative to the folder of the document.
    """
    found = [(train_id, polygon) for train_id in _present(labels) for polygon in trace_polygons(labels == train_id)]
    found.sort(key=lambda pair: -abs(_area(pair[1].outer)))
    shapes = [
        {
            "label": label_space.names[train_id],
            "points": polygon.outer.tolist(),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for train_id, polygon in found
    ]
    return _json(
        {
            "version": LABELME_VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": image_path,
            "imageData": None,
            "imageHeight": labels.shape[0],
            "imageWidth": labels.shape[1],
        }
    )


def _present(labels: Labels) -> list[int]:
    return [int(value) for value in np.unique(labels) if value != void_of(labels.dtype)]


def _area(ring: np.ndarray) -> float:
    """Return the signed area of a ring in square pixels."""
    x, y = ring.astype(np.float64).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _ring(ring: np.ndarray, point: Point | None, is_outer: bool) -> list[list[float]]:
    """Return a closed ring. GeoJSON wants outer rings counterclockwise, and holes clockwise, in its own coordinates."""
    points: np.ndarray = ring if point is None else np.array([point(float(x), float(y)) for x, y in ring])
    if (_area(points) > 0) != is_outer:
        points = points[::-1]
    return [*points.tolist(), points[0].tolist()]


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
