"""Tables of relative positions: bring those of a published file to windows of another size."""

from collections.abc import Mapping

import numpy as np

from pyrseg_jax.models.weights.head import State

TABLE = "relative_position_bias_table"  # how all publishers end the name of such a table
# Chosen: as in PyTorch, which the authors' code and mmsegmentation use.
BICUBIC_SHARPNESS = -0.75


def fit_tables(state: State, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Bring the tables of relative positions to the network's windows; also say in words what was changed.

    Args:
      state: the file's arrays by name.
      shapes: of the network's arrays, by the same names.

    Source: the authors' code and mmsegmentation's, which interpolate bicubically.
    Differs: timm places the entries of the old table in a geometric progression, and interpolates linearly.
    """
    fitted, changes = dict(state), []
    for name, array in state.items():
        if not name.endswith(TABLE) or name not in shapes or array.ndim != 2 or len(array) == shapes[name][0]:
            continue
        old, new = (round(rows**0.5) for rows in (len(array), shapes[name][0]))
        if old * old != len(array):
            continue  # of another kind of window: its shape does not fit, and `convert` says so
        weights = bicubic_weights(old, new)
        square = np.asarray(array, np.float64).reshape(old, old, -1)
        fitted[name] = np.einsum("ai,bj,ijh->abh", weights, weights, square).reshape(new * new, -1).astype(np.float32)
        changes.append(
            f"the tables of relative positions, from windows of {(old + 1) // 2} to windows of {(new + 1) // 2}"
        )
    return fitted, tuple(dict.fromkeys(changes))


def bicubic_weights(old: int, new: int) -> np.ndarray:
    """Return the matrix (new, old) that resamples a line of `old` numbers to `new`, as PyTorch does.

    Pixel centers lie at half-integers, the border repeats, and nothing is smoothed before a reduction.
    """
    at = (np.arange(new) + 0.5) * old / new - 0.5
    left, weights = np.floor(at).astype(int), np.zeros((new, old))
    for tap in range(-1, 3):
        index = np.clip(left + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), index), _cubic(np.abs(at - left - tap)))
    return weights


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Return the weight of a number at this distance, 0 … 2, in the cubic convolution (Keys 1981)."""
    a = BICUBIC_SHARPNESS
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, far)
