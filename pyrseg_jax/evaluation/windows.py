"""Predict an image of any size in overlapping windows, row by row, with memory that does not grow with its height.

The fused probabilities of the windows are averaged with weights that fall to zero at the borders of a window, where it does not
know what is beyond. So no window has a visible border. A network that sums up the whole image in tokens gets the same tokens in
every window: the windows are passed over twice, once to collect the tokens. So it hardly matters where the windows lie.

Chosen: windows overlap by a half, so each pixel lies in four of them, and their weights add up to one. The outer 3/16 of a window
hardly count: an HRNet's features change up to 160 pixels away from the border of a window. The tokens are averages over windows
that do not overlap, each of which has its own tokens. Moving windows of 768 pixels then changes less than 0.1 % of the labels.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from pyrseg_jax.data.resample import upsample_argmax, upsample_max, upsample_powers
from pyrseg_jax.evaluation.grid import Grid
from pyrseg_jax.evaluation.whole_tokens import TokenSums
from pyrseg_jax.evaluation.window_model import WindowModel

WINDOWS_AHEAD = 2  # that the device has been given, while the host adds up others

ReadRows = Callable[[int, int], UInt8[np.ndarray, "rows w 3"]]


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


class Windows:
    """The windows of one image.

    Args:
      model: predicts a window.
      read_rows: (top, bottom) → these rows of the image, (bottom - top, W, channels). In each pass over the image, they are asked
        for from top to bottom, and rows of two windows overlap.
      size: height and width of the image.
      window_px: side of a window.
      shift: rows and columns by which the grid of windows is moved.
    """

    def __init__(
        self,
        model: WindowModel,
        read_rows: ReadRows,
        size: tuple[int, int],
        window_px: int,
        shift: tuple[int, int] = (0, 0),
    ):
        self._model, self._read_rows, self._size, self._stride = model, read_rows, size, model.stride
        self._rows, self._columns = self._grids(window_px, shift, overlaps=True)
        self._tiles = self._grids(window_px, shift, overlaps=False)

    def collect_tokens(self) -> Any:
        """Return the tokens of the whole image; {} if the network has none, or a single window shows the whole image."""
        if not self._model.has_tokens or len(self._rows.starts) * len(self._columns.starts) == 1:
            return {}
        rows, columns = self._tiles
        sums = TokenSums(rows, columns)
        for top in rows.starts:
            for left, maps in self._row_of_windows(top, columns, self._model.collect):
                sums.add(top, left, maps)
        return sums.tokens()

    def predict(self, has_confidence: bool = False) -> Iterator[Strip]:
        """Yield the labels of the image from top to bottom.

        Args:
          has_confidence: whether to return the probability of each pixel's class.
        """
        rows, columns, tokens = self._rows, self._columns, self.collect_tokens()
        predict = functools.partial(self._model.predict, tokens=tokens)
        total = rows.total()[:, None, None], columns.total()[None, :, None]
        sums: np.ndarray | None = None  # of the cells from `first` on
        first, done = 0, 0  # cells above `done` are returned
        for index, start in enumerate(rows.starts):
            down = rows.weights(start)[:, None, None]
            for left, probs in self._row_of_windows(start, columns, predict):
                if sums is None:
                    sums = np.zeros((0, columns.length, probs.shape[-1]), np.float32)
                if len(sums) < start + rows.window - first:
                    missing = start + rows.window - first - len(sums)
                    sums = np.concatenate([sums, np.zeros((missing, *sums.shape[1:]), np.float32)])
                sums[start - first : start - first + rows.window, left : left + columns.window] += (
                    down * columns.weights(left)[None, :, None] * probs
                )
            assert sums is not None, "each side has a window"
            is_last = index + 1 == len(rows.starts)
            complete = rows.length if is_last else rows.starts[index + 1]
            # The last complete row of cells is needed below it, too.
            end = rows.length if is_last else complete - 1
            above, below = max(done - 1, 0), min(end + 1, complete)
            probs = sums[above - first : below - first] / (total[0][above:below] * total[1])
            yield self._strip(probs, above, done, end, has_confidence)
            done = end
            keep = max(done - 1, 0)
            sums, first = sums[keep - first :].copy(), keep

    def _grids(self, window_px: int, shift: tuple[int, int], overlaps: bool) -> tuple[Grid, Grid]:
        strides = self._model.stride, self._model.coarsest_stride
        rows, columns = (
            Grid.fit(side, window_px, *strides, by, overlaps) for side, by in zip(self._size, shift, strict=True)
        )
        return rows, columns

    def _row_of_windows(self, top: int, columns: Grid, start: Callable[[np.ndarray], Any]) -> Iterator[tuple[int, Any]]:
        """Yield the first cell and the result of each window of a row of windows; the device always has the next one.

        Args:
          top: the first row of cells.
          columns: where the windows lie.
          start: starts a window, (1, h, w, channels) → a tree of arrays on the device.
        """
        strip = self._read(top)
        started: deque[tuple[int, Any]] = deque()
        for left in columns.starts:
            part = strip[:, left * self._stride : (left + columns.window) * self._stride]
            started.append((left, start(np.ascontiguousarray(part)[None])))
            if len(started) > WINDOWS_AHEAD:
                yield _fetched(*started.popleft())
        for left, found in started:
            yield _fetched(left, found)

    def _read(self, top: int) -> np.ndarray:
        """Read the rows of a row of windows; repeat the last row and column of the image until windows fit."""
        first = top * self._stride
        strip = self._read_rows(first, min(first + self._rows.window * self._stride, self._size[0]))
        missing = (
            self._rows.window * self._stride - strip.shape[0],
            self._columns.length * self._stride - strip.shape[1],
        )
        return np.pad(strip, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge") if any(missing) else strip

    def _strip(self, probs: np.ndarray, above: int, first: int, end: int, has_confidence: bool) -> Strip:
        """Interpolate rows of cells to pixels.

        Args:
          probs: (rows, cells, C): the rows from `above` on, with one row above and below those wanted, where there is one.
          above: number of the first row.
          first, end: the rows wanted.
          has_confidence: as for `predict`.
        """
        height, width = self._size
        powers = probs[..., -1] if self._model.is_scaled else None
        probs = probs if powers is None else probs[..., :-1]
        pixels = probs.shape[0] * self._stride, probs.shape[1] * self._stride
        wanted = slice((first - above) * self._stride, min(end * self._stride, height) - above * self._stride)
        labels, confidence = upsample_argmax(probs, pixels)[wanted, :width], None
        if has_confidence:
            confidence = upsample_max(probs, pixels) if powers is None else upsample_powers(probs, powers, pixels)[0]
            confidence = confidence[wanted, :width]
        return Strip(first * self._stride, labels, confidence, not np.isnan(probs.min()))


def _fetched(left: int, found: Any) -> tuple[int, Any]:
    return left, jax.device_get(found)
