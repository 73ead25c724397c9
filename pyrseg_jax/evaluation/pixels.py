"""From padded views to the pixels of the label map, piece by piece: one program scores images of all sizes.

Heights and widths are values here, not shapes. The pixels of an image are numbered row by row, and the loops compute only as
many pieces as the image has.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, UInt, UInt8

from pyrseg_jax.conventions import label_dtype, void_of
from pyrseg_jax.evaluation.padding import PaddedView, halvings
from pyrseg_jax.models.resample import Index, Probs, interpolate_at

# At 150 classes the probabilities of a piece take 10 MB.
PIXELS_AT_A_TIME = 1 << 14
# Numbers of pixels that arrays are padded to: images of up to 256², 1024², 2048², … pixels.
PADDED_PIXELS = tuple(1 << i for i in (16, 20, 22, 24, 26, 28))


def padded_pixels(num_pixels: int) -> int:
    """Return the padded size of the flat arrays of an image with `num_pixels` pixels."""
    whole = -(-num_pixels // PIXELS_AT_A_TIME) * PIXELS_AT_A_TIME
    return next((size for size in PADDED_PIXELS if size >= num_pixels), whole)


@functools.partial(jax.jit, static_argnames="padded_size")
def labels_of_pixels(
    views: Sequence[PaddedView], size: Int32[Array, "2"], padded_size: int
) -> UInt[Array, "{padded_size}"]:
    """Return the class of every pixel of one image, row by row, then padding.

    Args:
      views: the views of a batch of one image; their probabilities are averaged.
      size: height and width of the image in pixels.
      padded_size: the size that `padded_pixels` returns.
    """
    views = [jax.tree.map(lambda x: x[0], view) for view in views]
    dtype = label_dtype(views[0].cells.shape[-1])

    def fill(i: Array, labels: Array) -> Array:
        probs = mean_fused(views, i * PIXELS_AT_A_TIME + jnp.arange(PIXELS_AT_A_TIME), size)
        piece = probs.argmax(-1).astype(dtype)
        return jax.lax.dynamic_update_slice(labels, piece, (i * PIXELS_AT_A_TIME,))

    return jax.lax.fori_loop(0, num_pieces(size), fill, jnp.zeros(padded_size, dtype))


@functools.partial(jax.jit, static_argnames=("padded_size", "has_confidence"))
def pixels_of_batch(
    views: Sequence[PaddedView], sizes: Int32[Array, "n 2"], padded_size: int, has_confidence: bool = False
) -> tuple[UInt[Array, "n {padded_size}"], UInt8[Array, "n {padded_size}"] | None, Bool[Array, "n"]]:
    """Return the class of every pixel of a batch of images, as `labels_of_pixels` does for one, and how sure it is.

    Args:
      views: the views of the batch; their probabilities are averaged.
      sizes: (N, 2) height and width of each image in pixels.
      padded_size: the size that `padded_pixels` returns for each of them.
      has_confidence: whether to return the second value.

    Returns:
      (N, A) classes; (N, A) probabilities of these classes, 0 … 255 for 0 … 1, or None; and whether all probabilities of each
      image are numbers.
    """

    dtype = label_dtype(views[0].cells.shape[-1])

    def find(image: tuple) -> tuple:
        views, size = image

        def fill(i: Array, found: tuple) -> tuple:
            probs = mean_fused(views, i * PIXELS_AT_A_TIME + jnp.arange(PIXELS_AT_A_TIME), size)
            pieces = [probs.argmax(-1).astype(dtype)]
            if has_confidence:
                pieces.append(jnp.round(255 * probs.max(-1)).astype(jnp.uint8))
            at = (i * PIXELS_AT_A_TIME,)
            return tuple(jax.lax.dynamic_update_slice(all, piece, at) for all, piece in zip(found, pieces, strict=True))

        empty = (jnp.zeros(padded_size, dtype), jnp.zeros(padded_size, jnp.uint8))[: 1 + has_confidence]
        return jax.lax.fori_loop(0, num_pieces(size), fill, empty)

    if len(sizes) == 1:
        found = tuple(x[None] for x in find((jax.tree.map(lambda x: x[0], list(views)), sizes[0])))
    else:
        found = jax.lax.map(find, (list(views), sizes))
    is_number = jnp.stack([~jnp.isnan(view.cells).any((1, 2)) for view in views]).all(0)
    return found[0], found[1] if has_confidence else None, is_number


def count_pairs(counts: Int32[Array, "..."], *group: Array | int, true: Index, predicted: Index) -> Int32[Array, "..."]:
    """Count the pairs of true and predicted class in `counts[*group]`; void is dropped."""
    at = 0
    for index, length in zip((*group, true, predicted), counts.shape, strict=True):
        at = at * length + index
    at = jnp.where(true == void_of(label_dtype(counts.shape[-1])), counts.size, at)
    counted = counts.reshape(-1).at[at].add(1, mode="drop", wrap_negative_indices=False)  # no index is negative
    return counted.reshape(counts.shape)


def num_pieces(size: Int32[Array, "2"]) -> Int32[Array, ""]:
    """Return how many pieces of `PIXELS_AT_A_TIME` the pixels of an image of this (height, width) fill."""
    return (size[0] * size[1] + PIXELS_AT_A_TIME - 1) // PIXELS_AT_A_TIME


def mean_fused(views: Sequence[PaddedView], pixels: Index, size: Int32[Array, "2"]) -> Probs:
    """Average the fused probabilities of all views of one image at some pixels."""
    return mean_over_views(views, [_fused_of(view) for view in views], pixels, size)


def _fused_of(view: PaddedView) -> Callable[[Index], Probs]:
    return lambda at: view.cells[view.chosen[at]]


def mean_over_views(
    views: Sequence[PaddedView],
    values: Sequence[Callable[[Index], Probs]],
    pixels: Index,
    size: Int32[Array, "2"],
) -> Probs:
    """Interpolate one map of each view at some pixels, and average over the views.

    Args:
      views: the views of one image.
      values: for each view, a function from (k,) positions of its finest level to their (k, C) values.
      pixels: (k,) row-major positions in the image.
      size: height and width of the image in pixels.
    """
    each = []
    for view, values_of in zip(views, values, strict=True):
        row, column = pixels // size[1], pixels % size[1]
        column = jnp.where(view.is_mirrored, size[1] - 1 - column, column)
        each.append(interpolate_at(values_of, view.grid, row * size[1] + column, size))
    return functools.reduce(jnp.add, each) / len(views)


def level_of_pixels(view: PaddedView, pixels: Index, size: Int32[Array, "2"]) -> Index:
    """Return the level of the finest-level position in which a pixel's center lies."""
    row, column = pixels // size[1], pixels % size[1]
    height, width = view.grid
    at_row, at_column = (2 * row + 1) * height // (2 * size[0]), (2 * column + 1) * width // (2 * size[1])
    return view.level[jnp.minimum(at_row, height - 1) * width + at_column]


def grid_of_level(view: PaddedView, num_levels: int, level: int) -> Int32[Array, "2"]:
    """Return height and width of a level."""
    return view.grid >> halvings(num_levels, view.refinement)[level]


def first_row_of_level(view: PaddedView, num_levels: int, level: int) -> Int32[Array, ""] | int:
    """Return the row of `PaddedView.cells` at which a level begins."""
    first = 0
    for coarser in range(level):
        height, width = grid_of_level(view, num_levels, coarser)
        first += height * width
    return first
