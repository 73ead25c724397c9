"""Paint objects (polygons, runs, boxes, …) into a class map. Where they overlap, the last one stays visible."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt16

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BY_AREA
from pyrseg_jax.shapes.polygons import fill_rings

ADVICE = "correct or remove the object"


class Object(NamedTuple):
    """An object in a picture.

    value: its value in the class map.
    fill: (height, width) → its pixels; a ValueError says what is wrong.
    place: the file and the object in it, for messages.
    layer: objects of lower layers are painted first, whatever their order.
    """

    value: int
    fill: Callable[[int, int], Bool[np.ndarray, "h w"]]
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
    masks = []
    for item in objects:
        try:
            mask = item.fill(height, width)
        except ValueError as error:
            raise UserError(f"{item.place}: {error}; {ADVICE}") from error
        masks.append(_Cut.of(mask))
    ranks = [
        (item.layer, -cut.area if order == BY_AREA else 0, i)
        for i, (item, cut) in enumerate(zip(objects, masks, strict=True))
    ]
    for _, _, i in sorted(ranks):
        cut = masks[i]
        class_map[cut.rows, cut.columns][cut.mask] = objects[i].value
    return class_map


class _Cut(NamedTuple):
    """The part of a mask that is set, so that many objects of a large picture take little memory."""

    mask: np.ndarray
    rows: slice
    columns: slice
    area: int

    @classmethod
    def of(cls, mask: np.ndarray) -> "_Cut":
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not rows.size:
            return cls(mask[:0, :0], slice(0), slice(0), 0)
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        part = mask[box].copy()
        return cls(part, *box, int(part.sum()))


def polygon_filler(rings: Sequence[np.ndarray]) -> Callable[[int, int], np.ndarray]:
    """Return a `fill` of the union of rings, as COCO means several polygons of one object."""

    def fill(height: int, width: int) -> np.ndarray:
        mask = fill_rings(rings[:1], height, width)
        for ring in rings[1:]:
            mask |= fill_rings([ring], height, width)
        return mask

    return fill


def percent_polygon_filler(ring: np.ndarray) -> Callable[[int, int], np.ndarray]:
    """Return a `fill` of a ring whose coordinates are shares of the width and height of the picture."""
    return lambda height, width: fill_rings([ring * (width, height)], height, width)


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
