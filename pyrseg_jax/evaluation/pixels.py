"""From showings to the pixels of the label map, a piece at a time: one program for images of all sizes.

Heights and widths are values here, not shapes: the pixels of an image are numbered row by row, and only as many pieces are
computed as the image has.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, UInt8

from pyrseg_jax.conventions import VOID
from pyrseg_jax.evaluation.showing import Showing
from pyrseg_jax.models.resample import Index, Probs, interpolate_at

# At 150 classes the probabilities of a piece take 10 MB.
PIXELS_AT_A_TIME = 1 << 14
# How many pixels the arrays have room for: images of up to 256², 1024², 2048², … pixels.
PIXEL_ROOMS = tuple(1 << i for i in (16, 20, 22, 24, 26, 28))


def room_for_pixels(num_pixels: int) -> int:
    """Return how much room the flat arrays of an image of so many pixels have."""
    whole = -(-num_pixels // PIXELS_AT_A_TIME) * PIXELS_AT_A_TIME
    return next((room for room in PIXEL_ROOMS if room >= num_pixels), whole)


@functools.partial(jax.jit, static_argnames="room")
def classes_of(showings: Sequence[Showing], size: Int32[Array, "2"], room: int) -> UInt8[Array, "{room}"]:
    """Return the class of every pixel of one image, row by row; what is past its end is padding.

    Args:
      showings: of a batch of one.
      size: the height and width to interpolate to.
      room: from `room_for_pixels`.
    """
    showings = [jax.tree.map(lambda x: x[0], showing) for showing in showings]

    def fill(i, classes):
        probs = _mean_fused(showings, i * PIXELS_AT_A_TIME + jnp.arange(PIXELS_AT_A_TIME), size)
        piece = probs.argmax(-1).astype(jnp.uint8)
        return jax.lax.dynamic_update_slice(classes, piece, (i * PIXELS_AT_A_TIME,))

    return jax.lax.fori_loop(0, _num_pieces(size), fill, jnp.zeros(room, jnp.uint8))


def count_pixels(
    showings: Sequence[Showing],
    labels: UInt8[Array, "n a"],
    is_near_boundary: Bool[Array, "n a"],
    sizes: Int32[Array, "n 2"],
    num_levels: int,
    *,
    is_analysed: bool,
) -> dict[str, Int32[Array, "..."]]:
    """Return confusion matrices (row = truth, column = prediction), summed over a batch.

    Args:
      showings: each of the whole batch. For the analysis there is one.
      labels: label maps, row by row; void pixels count nowhere.
      is_near_boundary: whether a pixel is near a semantic boundary.
      sizes: height and width of each label map.
      num_levels: L.
      is_analysed: count also what only the analysis needs.

    Returns:
      fused: (2, L, C, C) of the fused prediction, for pixels far from and near a boundary, by the level that the fuser took at
        the finest position a pixel lies in.
      Of the analysis:
      alone: (L, L, C, C) of each level alone, by that level.
      oracle: (2, C, C) with the true unity and the predicted semantic pyramid, and with these exchanged.
    """
    num_classes = showings[0].cells.shape[-1]
    shapes = {"fused": (2, num_levels)}
    if is_analysed:
        shapes |= {"alone": (num_levels, num_levels), "oracle": (2,)}
    zeros = {name: jnp.zeros((*shape, num_classes, num_classes), jnp.int32) for name, shape in shapes.items()}

    def add_image(counts, image):
        showings, labels, is_near, size = image

        def add_piece(i, counts):
            start = i * PIXELS_AT_A_TIME
            pixels = start + jnp.arange(PIXELS_AT_A_TIME)
            truth, near = (jax.lax.dynamic_slice(x, (start,), (PIXELS_AT_A_TIME,)) for x in (labels, is_near))
            truth = jnp.where(pixels < size[0] * size[1], truth, VOID).astype(jnp.int32)
            level = _level_of(showings[0], pixels, size)
            add = functools.partial(_add, truth=truth)
            fused = _mean_fused(showings, pixels, size).argmax(-1)
            counts = counts | {"fused": add(counts["fused"], near.astype(jnp.int32), level, classes=fused)}
            return counts | _count_analysis(counts, showings[0], pixels, size, level, add) if is_analysed else counts

        return jax.lax.fori_loop(0, _num_pieces(size), add_piece, counts), None

    return jax.lax.scan(add_image, zeros, (list(showings), labels, is_near_boundary, sizes))[0]


def _count_analysis(counts, showing: Showing, pixels: Index, size, level: Index, add: Callable) -> dict:
    alone, oracle = counts["alone"], counts["oracle"]
    for i in range(len(alone)):
        values = functools.partial(_cells_of_level, showing, len(alone), i)
        probs = interpolate_at(values, *_grid_of(showing, len(alone), i), pixels, size)
        alone = add(alone, i, level, classes=probs.argmax(-1))
    predicted = interpolate_at(lambda at: showing.cells[showing.true_chosen[at]], *showing.grid, pixels, size)
    num_classes = showing.cells.shape[-1]
    true = interpolate_at(lambda at: jax.nn.one_hot(showing.true_class[at], num_classes), *showing.grid, pixels, size)
    oracle = add(add(oracle, 0, classes=predicted.argmax(-1)), 1, classes=true.argmax(-1))
    return {"alone": alone, "oracle": oracle}


def _add(counts: Int32[Array, "..."], *group, truth: Index, classes: Index) -> Int32[Array, "..."]:
    """Count the pairs of truth and prediction in `counts[*group]`; void is dropped."""
    at = 0
    for index, length in zip((*group, truth, classes), counts.shape, strict=True):
        at = at * length + index
    at = jnp.where(truth == VOID, counts.size, at)
    counted = counts.reshape(-1).at[at].add(1, mode="drop", wrap_negative_indices=False)  # there is none
    return counted.reshape(counts.shape)


def _num_pieces(size: Int32[Array, "2"]) -> Int32[Array, ""]:
    return (size[0] * size[1] + PIXELS_AT_A_TIME - 1) // PIXELS_AT_A_TIME


def _mean_fused(showings: Sequence[Showing], pixels: Index, size: Int32[Array, "2"]) -> Probs:
    total = 0.0
    for showing in showings:
        row, column = pixels // size[1], pixels % size[1]
        column = jnp.where(showing.is_mirrored, size[1] - 1 - column, column)
        shown = row * size[1] + column

        def cells_of(at, showing=showing):
            return showing.cells[showing.chosen[at]]

        total += interpolate_at(cells_of, *showing.grid, shown, size)
    return total / len(showings)


def _level_of(showing: Showing, pixels: Index, size: Int32[Array, "2"]) -> Index:
    """Return the level of the finest position that a pixel's centre lies in."""
    row, column = pixels // size[1], pixels % size[1]
    height, width = showing.grid
    at_row, at_column = (2 * row + 1) * height // (2 * size[0]), (2 * column + 1) * width // (2 * size[1])
    return showing.level[jnp.minimum(at_row, height - 1) * width + at_column]


def _grid_of(showing: Showing, num_levels: int, level: int) -> tuple[Int32[Array, ""], Int32[Array, ""]]:
    times = num_levels - 1 - level
    return showing.grid[0] >> times, showing.grid[1] >> times


def _cells_of_level(showing: Showing, num_levels: int, level: int, at: Index) -> Probs:
    first = 0
    for coarser in range(level):
        height, width = _grid_of(showing, num_levels, coarser)
        first += height * width
    return showing.cells[first + at]
