"""Predict an image of any size in overlapping windows, row by row, with memory that does not grow with its height.

The fused probabilities of the windows are averaged with weights that fall to zero at the borders of a window, where it lacks
context. So no window has a visible border, and it hardly matters where the windows lie.

Chosen: Hann weights and windows that overlap by a half. Each pixel lies in four windows, whose weights add up to one.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from pyrseg_jax.data.resample import upsample_argmax, upsample_max

WINDOWS_AHEAD = 2  # that the device has been given, while the host adds up others

ReadRows = Callable[[int, int], UInt8[np.ndarray, "rows w 3"]]
PredictWindow = Callable[[np.ndarray], Any]


class Strip(NamedTuple):
    """Some rows of the result.

    top: the first row, in pixels.
    labels: (rows, W) uint8 train ids.
    confidence: (rows, W) float32, the probability of each pixel's class; None unless it was wanted.
    is_number: whether all probabilities are numbers.
    """

    top: int
    labels: np.ndarray
    confidence: np.ndarray | None
    is_number: bool


class Grid(NamedTuple):
    """Where windows lie along one side of an image, in cells of the finest level.

    starts: of the windows.
    window: cells of a window.
    length: cells of the side.
    """

    starts: tuple[int, ...]
    window: int
    length: int

    @classmethod
    def fit(cls, side: int, window: int, stride: int, coarsest: int, shift: int = 0) -> "Grid":
        """Lay windows along a side.

        Args:
          side: its length in pixels.
          window: side of a window in pixels; it is rounded down to a multiple of the coarsest stride, but at least one.
          stride, coarsest: strides of the finest and the coarsest level.
          shift: pixels by which all windows but the first and the last are moved.
        """
        window = max(window // coarsest, 1) * coarsest
        if side <= window:
            cells = -(-side // coarsest) * (coarsest // stride)
            return cls((0,), cells, cells)
        cells, length = window // stride, -(-side // stride)
        step = cells // 2
        inner = range(-shift // stride % step, length - cells, step)
        return cls(tuple(sorted({0, *inner, length - cells})), cells, length)

    def weights(self) -> Float[np.ndarray, " cells"]:
        """Return the weight of each cell of a window."""
        return np.sin(np.pi * (np.arange(self.window) + 0.5) / self.window).astype(np.float32) ** 2

    def total(self) -> Float[np.ndarray, " length"]:
        """Return the sum of the weights of all windows in each cell of the side."""
        total = np.zeros(self.length, np.float32)
        for start in self.starts:
            total[start : start + self.window] += self.weights()
        return total


def predict_rows(
    read_rows: ReadRows,
    size: tuple[int, int],
    predict: PredictWindow,
    window_px: int,
    stride: int,
    coarsest: int,
    has_confidence: bool = False,
    shift: tuple[int, int] = (0, 0),
) -> Iterator[Strip]:
    """Yield the labels of an image from top to bottom.

    Args:
      read_rows: (top, bottom) → these rows of the image, (bottom - top, W, 3) uint8. They are asked for from top to bottom, and
        rows of two windows overlap.
      size: height and width of the image.
      predict: images (1, h, w, 3) uint8 → fused probabilities (h / stride, w / stride, C).
      window_px: side of a window.
      stride, coarsest: strides of the finest and the coarsest level.
      has_confidence: whether to return the probability of each pixel's class.
      shift: rows and columns by which the grid of windows is moved.
    """
    height, width = size
    rows = Grid.fit(height, window_px, stride, coarsest, shift[0])
    columns = Grid.fit(width, window_px, stride, coarsest, shift[1])
    total = rows.total()[:, None, None], columns.total()[None, :, None]
    weights = rows.weights()[:, None, None] * columns.weights()[None, :, None]
    sums: np.ndarray | None = None  # of the cells from `first` on
    first, done = 0, 0  # cells above `done` are returned
    for index, start in enumerate(rows.starts):
        strip = _padded(read_rows(start * stride, min((start + rows.window) * stride, height)), rows, columns, stride)
        for left, probs in _windows_of(strip, columns, predict, stride):
            if sums is None:
                sums = np.zeros((0, columns.length, probs.shape[-1]), np.float32)
            if len(sums) < start + rows.window - first:
                missing = start + rows.window - first - len(sums)
                sums = np.concatenate([sums, np.zeros((missing, *sums.shape[1:]), np.float32)])
            sums[start - first : start - first + rows.window, left : left + columns.window] += weights * probs
        assert sums is not None, "each side has a window"
        is_last = index + 1 == len(rows.starts)
        complete = rows.length if is_last else rows.starts[index + 1]
        # The last complete row of cells is needed below it, too.
        end = rows.length if is_last else complete - 1
        if end <= done:
            continue
        above, below = max(done - 1, 0), min(end + 1, complete)
        probs = sums[above - first : below - first] / (total[0][above:below] * total[1])
        yield _strip(probs, above, done, end, stride, (height, width), has_confidence)
        done = end
        keep = max(done - 1, 0)
        sums, first = sums[keep - first :].copy(), keep


def _windows_of(
    strip: np.ndarray, columns: Grid, predict: PredictWindow, stride: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first cell and the probabilities of each window of a strip; the device always has the next one."""
    started: deque[tuple[int, Any]] = deque()
    for left in columns.starts:
        part = strip[:, left * stride : (left + columns.window) * stride]
        started.append((left, predict(np.ascontiguousarray(part)[None])))
        if len(started) > WINDOWS_AHEAD:
            left, probs = started.popleft()
            yield left, np.asarray(probs)
    for left, probs in started:
        yield left, np.asarray(probs)


def _padded(strip: np.ndarray, rows: Grid, columns: Grid, stride: int) -> np.ndarray:
    """Repeat the last row and column of an image until windows fit."""
    missing = rows.window * stride - strip.shape[0], columns.length * stride - strip.shape[1]
    if not any(missing):
        return strip
    return np.pad(strip, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def _strip(
    probs: np.ndarray, above: int, first: int, end: int, stride: int, size: tuple[int, int], has_confidence: bool
) -> Strip:
    """Interpolate rows of cells to pixels.

    Args:
      probs: (rows, cells, C): the rows from `above` on, with one row above and below those wanted, where there is one.
      above: number of the first row.
      first, end: the rows wanted.
      stride: pixels of a cell.
      size: height and width of the image.
      has_confidence: as for `predict_rows`.
    """
    height, width = size
    pixels = probs.shape[0] * stride, probs.shape[1] * stride
    wanted = slice((first - above) * stride, min(end * stride, height) - above * stride)
    labels = upsample_argmax(probs, pixels)[wanted, :width]
    confidence = upsample_max(probs, pixels)[wanted, :width] if has_confidence else None
    return Strip(first * stride, labels, confidence, not np.isnan(probs.min()))
