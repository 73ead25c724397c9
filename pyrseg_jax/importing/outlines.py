"""Read the outlines of objects. Those that enclose nothing, as after a slip of the mouse, are left out and counted."""

from typing import Any

import numpy as np

from pyrseg_jax.importing.annotations import Notes
from pyrseg_jax.importing.fields import MAX_SIDE, points_of

FEW_POINTS = "polygon of fewer than 3 points"
NO_AREA = "polygon whose points all lie on one line"
_FARTHEST = 100 * MAX_SIDE  # pixels
_FLAT = 1e-9  # width over length; far below any pixel, and above the rounding of 64-bit numbers


def outline_of(values: Any, place: str, notes: Notes, has_lines: bool = False) -> np.ndarray | None:
    """Return the points of a polygon as an array (N, 2), or None, after counting it, if it encloses nothing.

    Args:
      values: pairs, or one flat list x, y, x, y, …
      place: the file and the object in it, for messages.
      notes: where polygons that are left out are counted.
      has_lines: whether polygons whose points all lie on one line are kept, where the format paints their border.

    Raises:
      UserError: naming the place, if a coordinate is not a finite number: then the file is damaged.
    """
    points = points_of(values, place, fewest=0)
    if len(points) < 3:
        notes.add(FEW_POINTS, place)
        return None
    if not has_lines and _is_flat(points):
        notes.add(NO_AREA, place)
        return None
    return points


def _is_flat(points: np.ndarray) -> bool:
    """Tell whether all points lie on one line. A sum of areas would not tell: those of a figure of eight cancel."""
    if np.abs(points).max() > _FARTHEST:  # products may overflow; a fill refuses what lies far outside
        return False
    offsets = points - points[0]
    far = offsets[np.abs(offsets).sum(1).argmax()]
    across = np.abs(offsets[:, 0] * far[1] - offsets[:, 1] * far[0])
    return bool(across.max() <= _FLAT * (far @ far))
