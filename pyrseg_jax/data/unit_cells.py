"""Count the unit-cells of a label map on the host, to report what a pyramid will find in a data set."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt

from pyrseg_jax.conventions import void_of


class CellCounts(NamedTuple):
    """Counts of cells and pixels at L levels. The counts of a split are the sums over its images.

    cells: (L, 2) unit-cells and mixed cells; a cell without a labeled pixel is neither.
    unit_pixels: (L, C) labeled pixels of each class that lie in a unit-cell of the level.
    pixels: (C,) labeled pixels of each class in the part of the image that whole cells of the coarsest level cover.
    """

    cells: Int64[np.ndarray, "l 2"]
    unit_pixels: Int64[np.ndarray, "l c"]
    pixels: Int64[np.ndarray, "c"]


def count_cells(label: UInt[np.ndarray, "h w"], strides: Sequence[int], num_classes: int) -> CellCounts:
    """Count the cells of each level. Void agrees with every class.

    Rows and columns beyond the last whole cell of the coarsest level are left out at every level, so that levels can be compared.

    Args:
      label: (H, W) train ids; `conventions.void_of` their type is void.
      strides: strides of the levels, coarse to fine; each is a multiple of the next.
      num_classes: C.

    Source: Sec. 3.1. `pyramid.build_targets` does the same for batches on a device.
    """
    height, width = (side // strides[0] * strides[0] for side in label.shape)
    label = label[:height, :width]
    is_labeled = label != void_of(label.dtype)
    # A cell is a unit-cell if its smallest and its largest class are equal. Void must not count in either, so the smallest is
    # taken with void, the largest number of its type, and the largest of classes + 1, where void wraps around to 0.
    smallest, largest, labeled = label, (label + label.dtype.type(1)), is_labeled
    cells = np.zeros((len(strides), 2), np.int64)
    unit_pixels = np.zeros((len(strides), num_classes), np.int64)
    side = 1
    for level, stride in reversed(list(enumerate(strides))):
        factor, side = stride // side, stride
        smallest = _pool(np.minimum, smallest, factor)
        largest = _pool(np.maximum, largest, factor)
        labeled = _pool(np.add, labeled.astype(np.int32), factor)
        is_unit = (
            smallest.astype(np.int32) + 1 == largest
        )  # false where all pixels are void: in 32 bits, void + 1 is not 0
        cells[level] = is_unit.sum(), (labeled > 0).sum() - is_unit.sum()
        unit_pixels[level] = np.bincount(smallest[is_unit], labeled[is_unit], num_classes)[:num_classes]
    return CellCounts(cells, unit_pixels, np.bincount(label[is_labeled], minlength=num_classes)[:num_classes])


def _pool(combine: np.ufunc, array: np.ndarray, factor: int) -> np.ndarray:
    # Rows first: they are contiguous slices, which NumPy combines quickly.
    rows = combine.reduce([array[i::factor] for i in range(factor)])
    return combine.reduce([rows[:, i::factor] for i in range(factor)])
