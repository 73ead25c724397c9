"""Convert masks to polygons along the borders of their pixels, and polygons to masks.

A ring is an array of points (x, y) in pixels: the upper left corner of the upper left pixel is (0, 0), and the center of that
pixel is (0.5, 0.5). A ring is closed without repeating its first point.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int32, Integer, Real

SCALE = 5  # the grid of COCO's fill has five points per pixel and axis
MAX_OUTSIDE = 10  # a ring may reach this many times the larger side of its picture beyond it


class Polygon(NamedTuple):
    """A connected region.

    outer: its outer ring.
    holes: the rings of its holes.
    """

    outer: Int32[np.ndarray, "_ 2"]
    holes: tuple[Int32[np.ndarray, "_ 2"], ...]


def trace_polygons(mask: Bool[np.ndarray, "h w"]) -> list[Polygon]:
    """Return the regions of a mask as polygons along the borders of pixels; `fill_rings` gives the mask back exactly.

    Pixels that touch at a corner only lie in different regions, so no ring crosses itself. The regions and holes are ordered by
    their upper left corners, and each ring begins there and goes right.
    """
    corners, pairs = _corners_of(mask)
    rings = _walk(corners, pairs)
    _, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    outer: dict[int, np.ndarray] = {}
    holes: dict[int, list[np.ndarray]] = {}
    for ring in rings:
        x, y = ring[0]  # the upper left corner: the pixel to its lower right lies inside the ring
        if mask[y, x]:
            outer[int(regions[y, x])] = ring
        else:
            holes.setdefault(int(regions[y - 1, x]), []).append(ring)
    return [Polygon(ring, tuple(holes.get(region, ()))) for region, ring in outer.items()]


def _corners_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points (y, x) where a border turns, sorted, and for each the index of its neighbor along the row and the column.

    Two borders touch where exactly two pixels meet at a corner. This point then occurs twice, once for each border.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    upper_left, upper_right, lower_left, lower_right = (
        padded[:-1, :-1],
        padded[:-1, 1:],
        padded[1:, :-1],
        padded[1:, 1:],
    )
    is_turn = (upper_left ^ upper_right ^ lower_left ^ lower_right).astype(bool)
    is_touch = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    points = np.argwhere(is_turn | is_touch)
    touches = is_touch[tuple(points.T)]
    corners = np.repeat(points, 1 + touches, axis=0)
    along_row = (
        np.arange(len(corners)) ^ 1
    )  # in each row, the first and second corner are joined, the third and fourth, ...
    # Of the two corners of a touch, the first ends the border to the left, and the second begins that to the right. Where the upper
    # left and lower right pixels are set, the left border goes up; otherwise it goes down.
    rank = np.zeros(len(corners), np.int64)
    first = np.flatnonzero(np.repeat(touches, 1 + touches))[::2]
    goes_up = upper_left[tuple(corners[first].T)].astype(bool)
    rank[first], rank[first + 1] = ~goes_up, goes_up
    by_column = np.lexsort((rank, corners[:, 0], corners[:, 1]))
    along_column = np.empty(len(corners), np.int64)
    along_column[by_column] = by_column[np.arange(len(corners)) ^ 1]
    return corners, np.stack([along_row, along_column], 1)


def _walk(corners: np.ndarray, pairs: np.ndarray) -> list[np.ndarray]:
    """Follow the borders from each corner that no earlier ring has passed, first along the row."""
    row, column = pairs.T.tolist()
    is_passed = bytearray(len(row))
    rings = []
    for start in range(len(row)):
        if is_passed[start]:
            continue
        ring, here = [], start
        while not is_passed[here]:
            there = row[here]
            is_passed[here] = is_passed[there] = 1
            ring += [here, there]
            here = column[there]
        rings.append(corners[ring][:, ::-1].astype(np.int32))
    return rings


class Part(NamedTuple):
    """The part of a mask that may be set; all other pixels are not.

    top, left: the place of its upper left pixel.
    mask: its pixels.
    """

    top: int
    left: int
    mask: Bool[np.ndarray, "h w"]

    @property
    def place(self) -> tuple[slice, slice]:
        """The rows and columns of the part in the whole mask."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def fill_rings(
    rings: Sequence[Real[np.ndarray, "_ 2"]], height: int, width: int
) -> Bool[np.ndarray, "{height} {width}"]:
    """Return the pixels whose centers lie in an odd number of rings, so that a ring inside another is a hole.

    The rule on the border is that of COCO's library: a ring's points are rounded to a grid of a fifth of a pixel. Parts outside the
    picture are cut off.

    Source: pycocotools, `rleFrPoly`, with which the tests compare.

    Args:
      rings: one array (N, 2) of x and y per ring, in pixels.
      height, width: size of the picture in pixels.

    Raises:
      ValueError: if a coordinate is not a finite number, or lies too far outside the picture to be meant.
    """
    mask = np.zeros((height, width), bool)
    part = fill_part(rings, height, width)
    mask[part.place] = part.mask
    return mask


def fill_part(rings: Sequence[Real[np.ndarray, "_ 2"]], height: int, width: int) -> Part:
    """Return what `fill_rings` does without the empty rows and columns around it; a small ring in a large picture costs little."""
    crossings = [_crossings(np.asarray(ring, np.float64).reshape(-1, 2), height, width) for ring in rings if len(ring)]
    columns, rows = np.concatenate(crossings, 1) if crossings else np.zeros((2, 0), np.int64)
    if not columns.size:
        return Part(0, 0, np.zeros((0, 0), bool))
    left, top = int(columns.min()), int(rows.min())
    num_columns, num_rows = int(columns.max()) - left + 1, int(rows.max()) - top
    # Each crossing switches all pixels below it in its column. The last row of a column only ends what others began.
    places = (columns - left) * (num_rows + 1) + rows - top
    counts = np.bincount(places, minlength=num_columns * (num_rows + 1)).reshape(num_columns, num_rows + 1)
    switched = np.cumsum(counts[:, :num_rows] & 1, axis=1) & 1
    return Part(top, left, switched.T.astype(bool))


def _crossings(ring: Float[np.ndarray, "n 2"], height: int, width: int) -> Integer[np.ndarray, "2 crossings"]:
    """Return the columns whose centers a ring crosses, and the first row whose center lies below each crossing."""
    far = MAX_OUTSIDE * max(height, width, 1)
    if not np.isfinite(ring).all():
        raise ValueError("a coordinate is not a finite number")
    if ring.size and (ring.min() < -far or ring.max() > max(height, width) + far):
        worst = ring.flat[np.abs(ring).argmax()]
        raise ValueError(f"the coordinate {worst:g} lies far outside the picture of {width} × {height} pixels")
    grid = np.trunc(SCALE * ring + 0.5).astype(np.int64)
    x, y = _grid_line(grid, np.roll(grid, -1, axis=0))
    left = np.where(x[1:] < x[:-1], x[1:], x[1:] - 1)
    column = (left - SCALE // 2) // SCALE
    is_center = (x[1:] != x[:-1]) & (left % SCALE == SCALE // 2) & (column >= 0) & (column < width)
    upper = np.minimum(y[1:], y[:-1])[is_center]
    row = np.clip(-((SCALE // 2 - upper) // SCALE), 0, height)
    return np.stack([column[is_center], row])


def _grid_line(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the grid points of all edges of a ring one after another, including both ends of each edge."""
    length = np.abs(end - start)
    is_wide = length[:, 0] >= length[:, 1]
    steps = length.max(1)
    is_back = np.where(is_wide, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])
    low, high = (np.where(is_back[:, None], b, a) for a, b in ((start, end), (end, start)))
    across = np.where(is_wide, high[:, 1] - low[:, 1], high[:, 0] - low[:, 0])
    slope = across / np.maximum(steps, 1)
    edge = np.repeat(np.arange(len(start)), steps + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    step = np.where(is_back[edge], steps[edge] - step, step)
    along = step + np.where(is_wide, low[:, 0], low[:, 1])[edge]
    other = np.trunc(np.where(is_wide, low[:, 1], low[:, 0])[edge] + slope[edge] * step + 0.5).astype(np.int64)
    is_wide = is_wide[edge]
    return np.where(is_wide, along, other), np.where(is_wide, other, along)
