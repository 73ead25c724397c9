"""Count the unit-cells of a label map on the host: what the pyramid is going to see of a data set."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from pyrseg_jax.conventions import VOID


class CellCounts(NamedTuple):
    """What the cells of L levels hold; sums of these over images are the counts of a split.

    cells: (L, 2) unit-cells and mixed cells; a cell without a labelled pixel is neither.
    unit_pixels: (L, C) labelled pixels of each class that lie in a unit-cell of the level.
    pixels: (C,) labelled pixels of each class in the part of the image that the coarsest cells cover.
    """

    cells: Int64[np.ndarray, "l 2"]
    unit_pixels: Int64[np.ndarray, "l c"]
    pixels: Int64[np.ndarray, "c"]


def count_cells(label: UInt8[np.ndarray, "h w"], strides: Sequence[int], num_classes: int) -> CellCounts:
    """Count cells of each stride, coarse to fine; void agrees with every class.

    Rows and columns beyond the last whole cell of the coarsest level are left out at every level, so that levels compare.

    Source: Sec. 3.1; `pyramid.build_targets` is the same for batches on a device.
    """
    height, width = (side // strides[0] * strides[0] for side in label.shape)
    label = label[:height, :width]
    is_labelled = label != VOID
    # A cell is a unit-cell if the smallest class in it (void counts as the largest number) is the largest (void as 0, all
    # others one up).
    smallest, largest, labelled = label, (label + np.uint8(1)), is_labelled
    cells = np.zeros((len(strides), 2), np.int64)
    unit_pixels = np.zeros((len(strides), num_classes), np.int64)
    side = 1
    for level, stride in reversed(list(enumerate(strides))):
        factor, side = stride // side, stride
        smallest = _pool(np.minimum, smallest, factor)
        largest = _pool(np.maximum, largest, factor)
        labelled = _pool(np.add, labelled.astype(np.int32), factor)
        is_unit = smallest.astype(np.int32) + 1 == largest  # not where all is void: 255 + 1 against 0
        cells[level] = is_unit.sum(), (labelled > 0).sum() - is_unit.sum()
        unit_pixels[level] = np.bincount(smallest[is_unit], labelled[is_unit], num_classes)[:num_classes]
    return CellCounts(cells, unit_pixels, np.bincount(label[is_labelled], minlength=num_classes)[:num_classes])


def _pool(combine: np.ufunc, array: np.ndarray, factor: int) -> np.ndarray:
    # Rows first: these are whole slices, which NumPy combines quickly.
    rows = combine.reduce([array[i::factor] for i in range(factor)])
    return combine.reduce([rows[:, i::factor] for i in range(factor)])
