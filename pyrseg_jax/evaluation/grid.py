"""Where windows lie along one side of an image, and how much each of their cells counts."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Shares of a window's side: at each border a strip that hardly counts, and beside it one in which the weight rises. Where windows
# overlap by a half, the weight of one rises as that of its neighbor falls.
UNUSED, RISING = 3 / 16, 1 / 8
LEAST = 1e-6  # weight in the strip that hardly counts


class Grid(NamedTuple):
    """Where windows lie along one side of an image, in cells of the finest level.

    starts: of the windows.
    window: cells of a window.
    length: cells of the side.
    overlaps: whether windows overlap by a half; otherwise only the last two do, and all cells of a window count alike.
    """

    starts: tuple[int, ...]
    window: int
    length: int
    overlaps: bool = True

    @classmethod
    def fit(cls, side: int, window: int, stride: int, coarsest: int, shift: int = 0, overlaps: bool = True) -> "Grid":
        """Lay windows along a side.

        Every window begins at a multiple of the coarsest stride. So a cell of any level has the same pixels in all windows.

        Args:
          side: its length in pixels; it is rounded up to a multiple of the coarsest stride.
          window: side of a window in pixels; it is rounded down to a multiple of the coarsest stride, but at least one.
          stride, coarsest: strides of the finest and the coarsest level.
          shift: pixels by which all windows but the first and the last are moved; it is rounded down likewise.
          overlaps: as the attribute.
        """
        cell = coarsest // stride
        length, cells = -(-side // coarsest) * cell, max(window // coarsest, 1) * cell
        if length <= cells:
            return cls((0,), length, length, overlaps)
        step = max(cells // 2 // cell, 1) * cell if overlaps else cells
        inner = range(-(shift // coarsest) * cell % step, length - cells, step)
        return cls(tuple(sorted({0, *inner, length - cells})), cells, length, overlaps)

    def weights(self, start: int) -> Float[np.ndarray, " cells"]:
        """Return the weight of each cell of the window that begins at this cell.

        Near a border of the window that is no border of the image, the network does not know what is beyond: there the weight is
        nearly 0. Then it rises to 1.
        """
        if not self.overlaps:
            return np.ones(self.window, np.float32)
        at = np.arange(self.window) + 0.5
        is_first, is_last = start == 0, start + self.window == self.length
        to_border = np.minimum(np.where(is_first, np.inf, at), np.where(is_last, np.inf, self.window - at))
        rise = np.clip((to_border / self.window - UNUSED) / RISING, 0, 1)
        return (np.sin(np.pi / 2 * rise) ** 2 + LEAST).astype(np.float32)

    def total(self) -> Float[np.ndarray, " length"]:
        """Return the sum of the weights of all windows in each cell of the side."""
        total = np.zeros(self.length, np.float32)
        for start in self.starts:
            total[start : start + self.window] += self.weights(start)
        return total
