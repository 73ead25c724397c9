"""Where windows lie along one side of an image, and how much each of their cells counts."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


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

        Every window begins at a multiple of the coarsest stride. So a cell of any level has the same pixels in all windows.

        Args:
          side: its length in pixels; it is rounded up to a multiple of the coarsest stride.
          window: side of a window in pixels; it is rounded down to a multiple of the coarsest stride, but at least one.
          stride, coarsest: strides of the finest and the coarsest level.
          shift: pixels by which all windows but the first and the last are moved; it is rounded down likewise.
        """
        cell = coarsest // stride
        length, cells = -(-side // coarsest) * cell, max(window // coarsest, 1) * cell
        if length <= cells:
            return cls((0,), length, length)
        step = max(cells // 2 // cell, 1) * cell
        inner = range(-(shift // coarsest) * cell % step, length - cells, step)
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
