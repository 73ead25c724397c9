"""Find which level decides each position of a predicted pyramid, expand cells to pixels, and check that all parts fit together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyrseg_jax.reporting.palette import check_labels
from pyrseg_jax.reporting.result import Result

# States of a cell: its own level decides it; a finer level must decide; a coarser level has decided.
TAKEN, MIXED, DONE = 0, 1, 2

# `level` comes from the device, where a probability this close to the threshold may round to its other side.
_ROUNDING = 1e-3
_SMALLEST_GRIDDED_CELL_PX = 7


def cell_states(
    unity: Sequence[np.ndarray], threshold: float, finest_shape: tuple[int, int] | None = None
) -> tuple[np.ndarray, ...]:
    """Return whether each cell of each level is TAKEN, MIXED or DONE (decided by a coarser level).

    Args:
      unity: L-1 arrays (h_l, w_l) of probabilities, coarse -> fine.
      threshold: the least probability at which a cell counts as a unit-cell.
      finest_shape: shape of level L. Required only if `unity` is empty, because nothing else tells the shape then.

    Returns:
      L arrays of states.

    Raises:
      ValueError: if a level is not twice the size of the level before it.

    Source: Sec. 3.1, Eq. (2).
    """
    coarsest_shape = unity[0].shape if unity else finest_shape
    if coarsest_shape is None:
        raise ValueError("unity is empty, so the finest level's size is unknown; pass finest_shape=(h, w)")
    is_done = np.zeros(coarsest_shape, bool)
    states = []
    for index, probability in enumerate(unity):
        if probability.shape != is_done.shape:
            raise ValueError(
                f"unity[{index}] has shape {probability.shape}; expected {is_done.shape}, "
                "twice the size of the level before it"
            )
        is_unit = probability >= threshold
        states.append(np.where(is_done, DONE, np.where(is_unit, TAKEN, MIXED)))
        is_last = index == len(unity) - 1
        factor = _refined(finest_shape[0], probability.shape[0]) if is_last and finest_shape is not None else 2
        is_done = (is_done | is_unit).repeat(factor, axis=0).repeat(factor, axis=1)
    if finest_shape is not None and tuple(finest_shape) != is_done.shape:
        raise ValueError(
            f"the finest level has shape {tuple(finest_shape)}; expected {is_done.shape}, "
            "twice the size of the level before it"
        )
    return (*states, np.where(is_done, DONE, TAKEN))


def _refined(fine: int, coarse: int) -> int:
    """Return by which factor the finest level is larger than the level before it: 4, 8, … where it was refined, and else 2."""
    factor = fine // coarse if coarse else 0
    return factor if factor > 2 and factor & (factor - 1) == 0 else 2


def cells_taken(
    unity: Sequence[np.ndarray], threshold: float, finest_shape: tuple[int, int] | None = None
) -> tuple[np.ndarray, ...]:
    """Mark the cells whose prediction the fused map takes: L bool arrays. The arguments are those of `cell_states`.

    Each finest-level position lies in exactly one marked cell.
    """
    return tuple(states == TAKEN for states in cell_states(unity, threshold, finest_shape))


def stretch(cells: np.ndarray, panel: tuple[int, int]) -> np.ndarray:
    """Sample (h, w, ...) at the centers of a panel's pixels: (panel height, panel width, ...)."""
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(panel, cells.shape))
    return cells[rows[:, None], columns]


def draw_cell_edges(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Lighten the first row and column of pixels of every cell, if cells are large enough."""
    pixels = pixels.copy()
    if min(pixels.shape[0] / shape[0], pixels.shape[1] / shape[1]) >= _SMALLEST_GRIDDED_CELL_PX:
        ids = np.arange(shape[0] * shape[1]).reshape(shape)
        across = stretch(ids, pixels.shape[:2])
        is_edge = np.zeros(across.shape, bool)
        is_edge[1:] |= across[1:] != across[:-1]
        is_edge[:, 1:] |= across[:, 1:] != across[:, :-1]
        pixels[is_edge] = 0.45 * pixels[is_edge] + 0.55 * 255
    return pixels


def check_result(result: Result) -> None:
    """Raise ValueError, saying what was found and what was expected, unless all parts of a result fit together."""
    num_levels = len(result.semantic)
    if num_levels < 1 or len(result.unity) != num_levels - 1 or len(result.strides) != num_levels:
        raise ValueError(
            f"found {num_levels} semantic maps, {len(result.unity)} unity maps and {len(result.strides)} "
            "strides; expected L, L-1 and L of them with L >= 1, as the finest level has no unity map"
        )
    *coarse, finest = result.strides
    ratios = [2] * (num_levels - 2) + [_refined(coarse[-1], finest)] if coarse else []
    if any(coarse != ratio * fine for coarse, fine, ratio in zip(result.strides, result.strides[1:], ratios)):
        raise ValueError(
            f"strides are {tuple(result.strides)}; expected each to be half of the one before it; "
            "only the finest may be a quarter, an eighth … of it"
        )
    if not 0 <= result.threshold <= 1:
        raise ValueError(f"threshold is {result.threshold}; expected a probability in 0..1")
    num_classes = result.label_space.num_classes
    check_labels("labels", result.labels, result.image.shape[:2], num_classes)
    rows, columns = result.semantic[0].shape
    for index, classes in enumerate(result.semantic):
        times = result.strides[0] // result.strides[index]
        check_labels(f"semantic[{index}]", classes, (rows * times, columns * times), num_classes)
    for index, probability in enumerate(result.unity):
        # False for NaN, too.
        if not np.all((probability >= 0) & (probability <= 1)):
            raise ValueError(
                f"unity[{index}] holds values from {probability.min()} to {probability.max()}; "
                "expected probabilities in 0..1: apply the sigmoid to logits first"
            )
    _check_level(result)


def _check_level(result: Result) -> None:
    threshold = result.threshold
    finest = result.semantic[-1].shape
    if result.level.shape != finest:
        raise ValueError(f"level has shape {result.level.shape}; expected {finest}, that of the finest level")
    lowest, highest, num_levels = result.level.min(), result.level.max(), len(result.semantic)
    if lowest < 0 or highest >= num_levels:
        raise ValueError(f"level holds {lowest}..{highest}; expected 0..{num_levels - 1}, 0 being the coarsest")
    recomputed, is_close = np.zeros(finest, int), np.zeros(finest, bool)
    for index, cells in enumerate(cells_taken(result.unity, threshold, finest)):
        recomputed[stretch(cells, finest)] = index
    for probability in result.unity:
        is_close |= stretch(np.abs(probability - threshold) < _ROUNDING, finest)
    num_different = int(((recomputed != result.level) & ~is_close).sum())
    if num_different:
        raise ValueError(
            f"level and unity disagree at {num_different} of {recomputed.size} positions with "
            f"threshold={threshold}; expected the threshold with which the pyramid was fused"
        )
