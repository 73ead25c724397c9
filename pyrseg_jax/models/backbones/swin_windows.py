"""The windows of a Swin Transformer: how a map is cut into them, which a shift brings together, and who sees whom."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Added to the energies of positions that only the shift has brought together. The publishers have this number, too.
MASKED_ENERGY = -100.0
Pair = tuple[Array | np.ndarray, Array | np.ndarray]  # of rows and of columns


class Windows(NamedTuple):
    """How a block cuts a map into windows.

    The shift rolls rows and columns out at one border and in at the other. In the last windows of a row or column of windows, some
    positions then have neighbors from the opposite border, which they must not see.

    Attributes:
      shift: rows and columns by which the map is rolled up and to the left.
      is_last: whether each window, in row-major order, is in the last row of windows, and whether it is in the last column.
      is_apart: whether the shift of rows, and that of columns, brought two positions of a last window together.
    """

    shift: tuple[int, int]
    is_last: tuple[Bool[np.ndarray, "windows"], Bool[np.ndarray, "windows"]]
    is_apart: tuple[Bool[np.ndarray, "t t"], Bool[np.ndarray, "t t"]]

    def energies(self) -> Float[Array, "windows t t"]:
        """Return what each pair of positions of each window gets added to its energy: 0, or `MASKED_ENERGY`.

        The program computes this from the small arrays: as a constant it would take 78 MB for images of 1024 × 2048 px and
        windows of 12.
        """
        is_hidden = hidden_pairs(*jax.tree.map(jnp.asarray, (self.is_last, self.is_apart)))
        return jnp.where(is_hidden, MASKED_ENERGY, 0.0).astype(jnp.float32)


def hidden_pairs(is_last: Pair, is_apart: Pair) -> Bool[Array | np.ndarray, "windows t t"]:
    """Return for each window which positions do not see each other; the arguments are those of `Windows`, of NumPy or JAX."""
    rows, columns = (last[:, None, None] & apart for last, apart in zip(is_last, is_apart, strict=True))
    return rows | columns


@functools.lru_cache(maxsize=256)
def plan_windows(height: int, width: int, window: int, is_shifted: bool, splits_single: bool) -> Windows:
    """Plan the windows of a block.

    Args:
      height, width: of the map. It is padded with zeros at the bottom and on the right to multiples of the window.
      window: side of a window, in positions.
      is_shifted: whether the block shifts the windows by half of their side.
      splits_single: whether it does so also along an axis that a single window covers, see `SwinTransformer`.
    """
    rows, columns = -(-height // window), -(-width // window)
    shift = tuple(window // 2 if is_shifted and (count > 1 or splits_single) else 0 for count in (rows, columns))
    at = np.divmod(np.arange(rows * columns), columns)
    inside = np.divmod(np.arange(window**2), window)
    is_rolled = [position >= window - offset for position, offset in zip(inside, shift, strict=True)]
    return Windows(
        (shift[0], shift[1]),
        (at[0] == rows - 1, at[1] == columns - 1),
        (is_rolled[0][:, None] != is_rolled[0], is_rolled[1][:, None] != is_rolled[1]),
    )


@functools.lru_cache
def relative_index(window: int) -> Int[np.ndarray, "t t"]:
    """Return the row of the table of relative positions for each query and key of a window.

    Row (2w - 1) · (dy + w - 1) + dx + w - 1 belongs to a query that lies dy rows below and dx columns to the right of its key.
    """
    rows, columns = np.divmod(np.arange(window**2), window)
    below, right = (at[:, None] - at for at in (rows, columns))
    return (2 * window - 1) * (below + window - 1) + right + window - 1


def pad_to_multiple(x: Float[Array, "n h w c"], side: int) -> Float[Array, "n _ _ c"]:
    """Append rows and columns of zeros until both sizes are multiples of `side`."""
    below, right = (-size % side for size in x.shape[1:3])
    return x if below == right == 0 else jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))


def to_windows(x: Float[Array, "n h w c"], side: int) -> Float[Array, "n windows {side}*{side} c"]:
    """Cut a map into windows, both in row-major order; its sizes are multiples of `side`."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // side, side, w // side, side, c).swapaxes(2, 3)
    return x.reshape(n, -1, side * side, c)


def from_windows(x: Float[Array, "n windows t c"], size: tuple[int, int]) -> Float[Array, "n {size[0]} {size[1]} c"]:
    """Join windows to a map of this size: the inverse of `to_windows`."""
    n, _, t, c = x.shape
    side = round(t**0.5)
    x = x.reshape(n, size[0] // side, size[1] // side, side, side, c).swapaxes(2, 3)
    return x.reshape(n, *size, c)
