"""Which level decides where in a predicted pyramid, how cells become pixels, and whether the parts fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from pyrseg_jax.reporting.palette import check_labels

TAKEN, MIXED, DONE = 0, 1, 2
"""States of a cell: its level decides it; a finer level must; a coarser level has."""

# `level` comes from the network's own arithmetic, where a probability as close to the threshold as this may
# round to its other side.
_ROUNDING = 1e-3
_SMALLEST_GRIDDED_CELL_PX = 7


@runtime_checkable
class PyramidLike(Protocol):
    """Describe the prediction for one image; levels are ordered coarse -> fine, L of them.

    labels: (H, W) uint8, final train ids at the image's size.
    level: (h, w) int, index of the level that decided each finest-level position; 0 is the coarsest.
    semantic: L arrays (h_l, w_l) uint8, most probable class; each level has twice the size of the one before.
    unity: L-1 arrays (h_l, w_l) float, probability in 0..1 that a cell holds one class only.
    strides: L ints, pixels of the network's input per side of a cell, such as (32, 16, 8, 4).
    """

    labels: np.ndarray
    level: np.ndarray
    semantic: tuple[np.ndarray, ...]
    unity: tuple[np.ndarray, ...]
    strides: tuple[int, ...]


def cell_states(
    unity: Sequence[np.ndarray], threshold: float, finest_shape: tuple[int, int] | None = None
) -> tuple[np.ndarray, ...]:
    """Say of each cell of each level whether it is TAKEN, MIXED or DONE (by a coarser level).

    Args:
        unity: L-1 arrays (h_l, w_l) of probabilities, coarse -> fine.
        threshold: the least probability at which a cell counts as a unit-cell.
        finest_shape: shape of level L; needed only if `unity` is empty, where nothing else tells it.
    Returns:
        L arrays of states. Source: Sec. 3.1, Eq. (2) of the paper.
    Raises:
        ValueError: if a level has not twice the size of the level before it.
    """
    if not unity and finest_shape is None:
        raise ValueError("unity is empty, so the finest level's size is unknown; pass finest_shape=(h, w)")
    is_done = np.zeros(unity[0].shape if unity else finest_shape, bool)
    states = []
    for index, probability in enumerate(unity):
        if probability.shape != is_done.shape:
            raise ValueError(
                f"unity[{index}] has shape {probability.shape}; expected {is_done.shape}, "
                "twice the size of the level before it"
            )
        is_unit = probability >= threshold
        states.append(np.where(is_done, DONE, np.where(is_unit, TAKEN, MIXED)))
        is_done = (is_done | is_unit).repeat(2, axis=0).repeat(2, axis=1)
    if finest_shape is not None and tuple(finest_shape) != is_done.shape:
        raise ValueError(
            f"the finest level has shape {tuple(finest_shape)}; expected {is_done.shape}, "
            "twice the size of the level before it"
        )
    return (*states, np.where(is_done, DONE, TAKEN))


def cells_taken(
    unity: Sequence[np.ndarray], threshold: float, finest_shape: tuple[int, int] | None = None
) -> tuple[np.ndarray, ...]:
    """Mark the cells whose prediction the fused map takes: L bool arrays; arguments as in `cell_states`.

    Each finest-level position lies in exactly one marked cell.
    """
    return tuple(states == TAKEN for states in cell_states(unity, threshold, finest_shape))


def stretch(cells: np.ndarray, panel: tuple[int, int]) -> np.ndarray:
    """Sample (h, w, ...) at the centres of a panel's pixels: (panel height, panel width, ...)."""
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(panel, cells.shape))
    return cells[rows[:, None], columns]


def draw_cell_edges(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Lighten the first line of pixels of every cell, where cells are large enough to spare it."""
    pixels = pixels.copy()
    if min(pixels.shape[0] / shape[0], pixels.shape[1] / shape[1]) >= _SMALLEST_GRIDDED_CELL_PX:
        ids = np.arange(shape[0] * shape[1]).reshape(shape)
        across = stretch(ids, pixels.shape[:2])
        is_edge = np.zeros(across.shape, bool)
        is_edge[1:] |= across[1:] != across[:-1]
        is_edge[:, 1:] |= across[:, 1:] != across[:, :-1]
        pixels[is_edge] = 0.45 * pixels[is_edge] + 0.55 * 255
    return pixels


def check_pyramid(pyramid: PyramidLike, image_shape: tuple[int, int], num_classes: int, threshold: float) -> None:
    """Raise ValueError, saying what was found and expected, unless all parts of `pyramid` fit together."""
    num_levels = len(pyramid.semantic)
    if num_levels < 1 or len(pyramid.unity) != num_levels - 1 or len(pyramid.strides) != num_levels:
        raise ValueError(
            f"found {num_levels} semantic maps, {len(pyramid.unity)} unity maps and {len(pyramid.strides)} "
            "strides; expected L, L-1 and L of them with L >= 1, as the finest level has no unity map"
        )
    if any(coarse != 2 * fine for coarse, fine in zip(pyramid.strides, pyramid.strides[1:])):
        raise ValueError(f"strides are {tuple(pyramid.strides)}; expected each to be half of the one before it")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; expected a probability in 0..1")
    check_labels("labels", pyramid.labels, image_shape, num_classes)
    rows, columns = pyramid.semantic[0].shape
    for index, classes in enumerate(pyramid.semantic):
        check_labels(f"semantic[{index}]", classes, (rows << index, columns << index), num_classes)
    for index, probability in enumerate(pyramid.unity):
        # The comparison is false for NaN too.
        if not np.all((probability >= 0) & (probability <= 1)):
            raise ValueError(
                f"unity[{index}] holds values from {probability.min()} to {probability.max()}; "
                "expected probabilities in 0..1: apply the sigmoid to logits first"
            )
    _check_level(pyramid, threshold)


def _check_level(pyramid: PyramidLike, threshold: float) -> None:
    finest = pyramid.semantic[-1].shape
    if pyramid.level.shape != finest:
        raise ValueError(f"level has shape {pyramid.level.shape}; expected {finest}, that of the finest level")
    lowest, highest, num_levels = pyramid.level.min(), pyramid.level.max(), len(pyramid.semantic)
    if lowest < 0 or highest >= num_levels:
        raise ValueError(f"level holds {lowest}..{highest}; expected 0..{num_levels - 1}, 0 being the coarsest")
    recomputed, is_close = np.zeros(finest, int), np.zeros(finest, bool)
    for index, cells in enumerate(cells_taken(pyramid.unity, threshold, finest)):
        recomputed[stretch(cells, finest)] = index
    for probability in pyramid.unity:
        is_close |= stretch(np.abs(probability - threshold) < _ROUNDING, finest)
    num_different = int(((recomputed != pyramid.level) & ~is_close).sum())
    if num_different:
        raise ValueError(
            f"level and unity disagree at {num_different} of {recomputed.size} positions with "
            f"threshold={threshold}; expected the threshold with which the pyramid was fused"
        )
