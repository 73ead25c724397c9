"""Find the class of every pixel of an interpolated map, without interpolating every class at every pixel.

Four neighboring positions of a map are the corners of a patch, and the values of the patch's pixels lie between theirs. Where one
class leads at all four corners, it wins the whole patch. Elsewhere, few classes can win, and only these are interpolated. This is
several times faster on a CPU. Accelerators interpolate all classes instead: these loops depend on the values.

The classes are those of the argmax of `interpolate_at`, where the lowest class wins a tie. A class is left out only where it loses
by more than rounding can change, and all classes are interpolated at pixels where the lead is not larger than that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, Integer

from pyrseg_jax.models.resample import Index, Probs, corners_at, interpolate_at, patch_of_pixels

# Classes of a patch that are interpolated one by one. A patch in which more classes can win takes all of them.
CANDIDATES = 8
# The relative lead that rounding cannot change: an interpolation rounds a few times, by 6e-8 each.
MARGIN = 1e-5
# How many rows, patches, or pixels a loop takes at a time, so that they stay in the cache of a CPU core.
ROWS, POSITIONS, PATCHES, PIXELS, FEW, ALL = 1 << 12, 1 << 12, 1 << 8, 1 << 14, 1 << 12, 1 << 10

Grid = Int32[Array, "2"]
# (counts, pixels, their classes, which of them count) → counts
Add = Callable[[Any, Index, Index, Bool[Array, "k"]], Any]


class Patches(NamedTuple):
    """The classes that can win in each patch of a map of P positions. A patch has the number of its upper left corner.

    Attributes:
      winner: (P,) the class that wins the whole patch, or -1 - i, where i is the patch's row of `candidates`.
      candidates: (Q, K) classes that can win, possibly several times. They begin with -1 where they are too many to list.
    """

    winner: Int32[Array, "p"]
    candidates: Int32[Array, "q k"]


class Map(NamedTuple):
    """A map of classes or probabilities that stretches over an image.

    Attributes:
      grid: height and width.
      patches: the classes that can win in each patch.
      of_classes: a function from (k,) positions and (k, K) classes to the values of these classes (k, K).
      of_all: a function from (k,) positions to the values of all classes (k, C).
    """

    grid: Grid
    patches: Patches
    of_classes: Callable[[Index, Integer[Array, "k c"]], Probs]
    of_all: Callable[[Index], Probs]


def leaders_of(cells: Probs, first: Int32[Array, ""], num_rows: Int32[Array, ""], size: int) -> Int32[Array, "r"]:
    """Return the most likely class of each row, or -1 - class where it does not lead by more than rounding can change.

    Args:
      cells: (B, C) probabilities.
      first: the first row that is ranked.
      num_rows: how many rows are ranked at least.
      size: the length of the result, R; rows that are not ranked are 0. A row with a NaN counts as one of class C.
    """
    at_a_time = min(ROWS, size)

    def rank(i: Array, leaders: Array) -> Array:
        start = jnp.minimum(i * at_a_time, size - at_a_time)
        values = jax.lax.dynamic_slice_in_dim(cells, first + start, at_a_time)
        classes = jax.lax.broadcasted_iota(jnp.int32, values.shape, 1)
        num_classes = values.shape[1]
        top = values.max(-1)
        best = jnp.where(values == top[:, None], classes, num_classes).min(-1)
        best = jnp.where(jnp.isnan(values).any(-1), num_classes, best)  # XLA:CPU's maximum passes over some NaNs
        second = jnp.where(classes == best[:, None], -jnp.inf, values).max(-1)
        leads = (top - second > MARGIN * (jnp.abs(top) + jnp.abs(second))) | (num_classes == 1)
        found = jnp.where(leads & (best < num_classes), best, -1 - best)
        return jax.lax.dynamic_update_slice(leaders, found, (start,))

    return jax.lax.fori_loop(0, _pieces(jnp.minimum(num_rows, size), at_a_time), rank, jnp.zeros(size, jnp.int32))


def patches_of_cells(
    cells: Probs, leaders: Int32[Array, "r"], first: Int32[Array, ""], rows: Int32[Array, "p"], grid: Grid
) -> Patches:
    """Return the classes that can win in the patches of a map of probabilities.

    At a pixel, the corners' values are averaged with its weights. Whatever these are, a class cannot win if another one is above it
    at all corners, or the mean of some others is: one of those is then above it, too. The mean of the four corners' leaders leaves
    out nearly every class.

    Args:
      cells: (B, C) probabilities, of which those of this image begin at `first`.
      leaders: what `leaders_of` returns for this image.
      first: the first row of this image.
      rows: (P,) the row of the image at each position of the map, row-major.
      grid: height and width of the map.
    """
    num_classes = cells.shape[1]

    def find(corners: Int32[Array, "k 4"]) -> Int32[Array, "k c"]:
        at = rows[corners]
        values = _take(cells, first + at)  # (k, 4, C)
        leader = _class_of(_take(leaders, at))
        of_leaders = jnp.take_along_axis(values, jnp.minimum(leader, num_classes - 1)[:, None], axis=2, mode="clip")
        mean = of_leaders.mean(2, keepdims=True)
        loses = (values + MARGIN * (jnp.abs(values) + jnp.abs(mean)) < mean).all(1)
        return _list_classes(~loses, (leader == num_classes).any(1))

    return _patches(lambda at: _take(leaders, rows[at]), find, len(rows), grid, CANDIDATES)


def patches_of_classes(classes: Int32[Array, "p"], num_classes: int, grid: Grid) -> Patches:
    """Return the classes that can win in the patches of a map of one class per position, with others than 0 … C-1 for void.

    A void position has no class. Where a pixel has none at all, the argmax is class 0.
    """
    known = jnp.where((classes >= 0) & (classes < num_classes), classes, 0)

    def find(corners: Int32[Array, "k 4"]) -> Int32[Array, "k c"]:
        return jnp.pad(known[corners], ((0, 0), (0, 1)))

    return _patches(lambda at: known[at], find, len(classes), grid, 5)


def _patches(
    leader_at: Callable[[Array], Array],
    find: Callable[[Int32[Array, "k 4"]], Int32[Array, "k c"]],
    size: int,
    grid: Grid,
    num_candidates: int,
) -> Patches:
    """Compare the corners of all patches, and find the candidates of those without a winner."""
    at_a_time, num_positions = min(POSITIONS, size), grid[0] * grid[1]

    def compare(i: Array, found: tuple) -> tuple:
        winner, undecided, count = found
        start = jnp.minimum(i * at_a_time, size - at_a_time)
        at = start + jnp.arange(at_a_time, dtype=jnp.int32)
        leader = leader_at(jnp.stack(corners_at(at, grid), -1))
        wins = (leader[:, 0] >= 0) & (leader == leader[:, :1]).all(1)
        # The last piece starts early enough to be a full one, and leaves out the patches of the piece before.
        is_new = (at >= i * at_a_time) & (at < num_positions)
        undecided, count = _append(undecided, count, at, ~wins & is_new)
        return jax.lax.dynamic_update_slice(winner, leader[:, 0], (start,)), undecided, count

    nothing = jnp.zeros(size, jnp.int32)
    winner, undecided, count = jax.lax.fori_loop(
        0, _pieces(num_positions, at_a_time), compare, (nothing, nothing, jnp.int32(0))
    )

    def list_candidates(i: Array, found: Patches) -> Patches:
        index = i * PATCHES + jnp.arange(PATCHES, dtype=jnp.int32)
        at = _take(undecided, index)
        candidates = find(jnp.stack(corners_at(at, grid), -1))
        to = jnp.where(index < count, at, size)
        return Patches(
            found.winner.at[to].set(-1 - index, mode="drop", wrap_negative_indices=False),
            jax.lax.dynamic_update_slice(found.candidates, candidates, (i * PATCHES, 0)),
        )

    candidates = jnp.zeros((size + PATCHES, num_candidates), jnp.int32)
    return jax.lax.fori_loop(0, _pieces(count, PATCHES), list_candidates, Patches(winner, candidates))


def _list_classes(can_win: Bool[Array, "k c"], is_damaged: Bool[Array, "k"]) -> Int32[Array, "k 8"]:
    """Return the first candidates of each patch, repeating the last one, or -1 where there are more."""
    classes = jax.lax.broadcasted_iota(jnp.int32, can_win.shape, 1)
    last, found = jnp.full(len(can_win), -1, jnp.int32), []
    for _ in range(CANDIDATES):
        following = jnp.where(can_win & (classes > last[:, None]), classes, can_win.shape[1]).min(-1)
        last = jnp.where(following < can_win.shape[1], following, last)
        found.append(last)
    is_listed = (can_win.sum(-1) <= CANDIDATES) & ~is_damaged
    return jnp.where(is_listed[:, None], jnp.stack(found, -1), -1)


def count_classes(counts: Any, interpolated: Map, size: Int32[Array, "2"], num_padded: int, add: Add) -> Any:
    """Add the class of every pixel of an image to some counts, in an order of its own.

    Args:
      counts: what `add` counts in.
      interpolated: the map.
      size: height and width of the image in pixels.
      num_padded: pixels of the largest image, at least.
      add: adds some pixels.
    """
    grid, patches, num_pixels = interpolated.grid, interpolated.patches, size[0] * size[1]

    def add_decided(i: Array, found: tuple) -> tuple:
        counts, undecided, count = found
        pixels = i * PIXELS + jnp.arange(PIXELS, dtype=jnp.int32)
        winner = _take(patches.winner, patch_of_pixels(grid, pixels, size))
        is_inside = pixels < num_pixels
        counts = add(counts, pixels, winner, is_inside & (winner >= 0))
        return counts, *_append(undecided, count, pixels, is_inside & (winner < 0))

    nothing = jnp.zeros(num_padded, jnp.int32), jnp.int32(0)
    counts, undecided, count = jax.lax.fori_loop(0, _pieces(num_pixels, PIXELS), add_decided, (counts, *nothing))

    def add_few(i: Array, found: tuple) -> tuple:
        counts, rest, num_rest = found
        index = i * FEW + jnp.arange(FEW, dtype=jnp.int32)
        pixels, is_inside = _take(undecided, index), index < count
        row = -1 - _take(patches.winner, patch_of_pixels(grid, pixels, size))
        classes = _take(patches.candidates, row)
        values = interpolate_at(lambda at: interpolated.of_classes(at, classes), grid, pixels, size)
        top = values.max(-1, keepdims=True)
        best = jnp.where(values == top, classes, jnp.iinfo(jnp.int32).max).min(-1)
        second = jnp.where(classes == best[:, None], -jnp.inf, values).max(-1)
        # Programs may round differently, so the one for all classes decides what is nearly a tie.
        is_clear = (classes[:, 0] >= 0) & (top[:, 0] - second > 2 * MARGIN * jnp.abs(top[:, 0]))
        counts = add(counts, pixels, best, is_inside & is_clear)
        return counts, *_append(rest, num_rest, pixels, is_inside & ~is_clear)

    counts, rest, num_rest = jax.lax.fori_loop(0, _pieces(count, FEW), add_few, (counts, *nothing))

    def add_rest(i: Array, counts: Any) -> Any:
        index = i * ALL + jnp.arange(ALL, dtype=jnp.int32)
        pixels = _take(rest, index)
        best = interpolate_at(interpolated.of_all, grid, pixels, size).argmax(-1)
        return add(counts, pixels, best, index < num_rest)

    return jax.lax.fori_loop(0, _pieces(num_rest, ALL), add_rest, counts)


def _class_of(leader: Int32[Array, "..."]) -> Int32[Array, "..."]:
    return jnp.where(leader < 0, -1 - leader, leader)


def _take(values: Array, at: Array) -> Array:
    """Return `values[at]`, where indices past the end, of padding, take the last."""
    return values.at[at].get(mode="clip", wrap_negative_indices=False)


def _append(values: Array, count: Array, new: Array, is_wanted: Array) -> tuple[Array, Array]:
    """Write some of the new values behind the `count` values that are there; also return how many there are then."""
    rank = jnp.cumsum(is_wanted.astype(jnp.int32))
    to = jnp.where(is_wanted, count + rank - 1, len(values))
    return values.at[to].set(new, mode="drop", wrap_negative_indices=False), count + rank[-1]


def _pieces(total: Array | int, at_a_time: int) -> Any:
    return (total + at_a_time - 1) // at_a_time
