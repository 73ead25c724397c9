"""Paint objects (polygons, runs, boxes, …) into a class map. Where they overlap, the last one stays visible."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt16

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BY_AREA
from pyrseg_jax.shapes.polygons import Part, fill_part

ADVICE = "correct or remove the object"


Fill = Callable[[int, int], Part]


class Object(NamedTuple):
    """An object in a picture.

    value: its value in the class map.
    fill: (height, width) → the part of the picture that it covers; a ValueError says what is wrong.
    place: the file and the object in it, for messages.
    layer: objects of lower layers are painted first, whatever their order.
    """

    value: int
    fill: Fill
    place: str
    layer: int = 0


def paint_objects(objects: Sequence[Object], order: str, height: int, width: int) -> UInt16[np.ndarray, "h w"]:
    """Paint objects over each other.

    Args:
      objects: in the order of the file.
      order: `BY_AREA` paints larger ones first, so that small ones stay visible, and equal ones in the order of the file; `BY_FILE`
        keeps this order.
      height, width: of the picture, in pixels.

    Raises:
      UserError: naming the object, if it cannot be filled.
    """
    class_map = np.zeros((height, width), np.uint16)
    parts = []
    for item in objects:
        try:
            parts.append(item.fill(height, width))
        except ValueError as error:
            raise UserError(f"{item.place}: {error}; {ADVICE}") from error
    areas = [int(part.mask.sum()) if order == BY_AREA else 0 for part in parts]
    for i in sorted(range(len(objects)), key=lambda i: (objects[i].layer, -areas[i], i)):
        class_map[parts[i].place][parts[i].mask] = objects[i].value
    return class_map


def part_of(mask: Bool[np.ndarray, "h w"]) -> Part:
    """Cut away the empty rows and columns around a mask, so that many objects of a large picture take little memory."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return Part(0, 0, mask[:0, :0])
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Part(int(rows[0]), int(columns[0]), box.copy())


def polygon_filler(rings: Sequence[np.ndarray]) -> Fill:
    """Return a `fill` of the union of rings: in COCO, one object may have several polygons."""

    def fill(height: int, width: int) -> Part:
        parts = [part for ring in rings if (part := fill_part([ring], height, width)).mask.size]
        if len(parts) <= 1:
            return parts[0] if parts else Part(0, 0, np.zeros((0, 0), bool))
        places = [part.place for part in parts]
        top, left = (min(place[axis].start for place in places) for axis in (0, 1))
        bottom, right = (max(place[axis].stop for place in places) for axis in (0, 1))
        union = np.zeros((bottom - top, right - left), bool)
        for part in parts:
            union[part._replace(top=part.top - top, left=part.left - left).place] |= part.mask
        return Part(top, left, union)

    return fill


def percent_polygon_filler(ring: np.ndarray) -> Fill:
    """Return a `fill` of a ring whose coordinates are shares of the width and height of the picture."""
    return lambda height, width: fill_part([ring * (width, height)], height, width)


def box_ring(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return the ring of a box."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def turned_ring(ring: np.ndarray, degrees: float, center: Sequence[float]) -> np.ndarray:
    """Turn a ring clockwise, as seen in the picture, around a point."""
    angle = np.deg2rad(degrees)
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    return (ring - center) @ turn + center


def ellipse_ring(x: float, y: float, radius_x: float, radius_y: float, num_points: int = 90) -> np.ndarray:
    """Return an ellipse as a ring of points."""
    angles = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], 1)
