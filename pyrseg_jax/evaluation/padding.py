"""The layout of predictions while an evaluation averages views and scores pixels: arrays of a few fixed shapes.

The pixels of images of all sizes can then be scored by a handful of compiled programs, which take heights and widths as
values. Without padding, XLA would compile one program per pair of network size and image size.
"""

from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Shaped

from pyrseg_jax.conventions import label_dtype
from pyrseg_jax.evaluation.predict import Prediction
from pyrseg_jax.pyramid.levels import to_children

# Numbers of finest-level positions that arrays are padded to. At stride 4 these are images of up to 256² and 1024² pixels,
# and then of twice as many pixels each time.
PADDED_POSITIONS = (4**6, *(2**i for i in range(16, 25)))


@flax.struct.dataclass
class PaddedView:
    """Predictions for one view (scale, flip, window), padded to a fixed shape.

    The cells of all levels are rows of one table. Each position of the finest level points to the row that the fuser takes.

    Attributes:
      cells: (N, R, C) class probabilities, level by level, coarse → fine, each level row-major. The rest is padding.
      chosen: (N, P) the row of `cells` that the fuser takes at each finest-level position, row-major.
      level: (N, P) the level of that row; 0 is the coarsest.
      level_counts: (N, L) how many finest-level positions each level decides. For an image in windows, the sum over windows.
      grid: (N, 2) height and width of the finest level.
      is_mirrored: (N,) whether the network saw the image mirrored.
      disagreement: (N, P) how much the levels disagree, see `disagreement.disagreement_of`; None unless it is wanted.
      refinement: as in `predict.Prediction`; part of the type, since the sizes of the levels depend on it.
    """

    cells: Any  # not annotated more closely: jax also builds this class from single images, shardings and host arrays
    chosen: Any
    level: Any
    level_counts: Any
    grid: Any
    is_mirrored: Any
    disagreement: Any = None
    refinement: int = flax.struct.field(pytree_node=False, default=1)


def halvings(num_levels: int, refinement: int) -> tuple[int, ...]:
    """Return how often the finest level must be halved to have the size of each level, coarse → fine."""
    return (*(refinement + times for times in reversed(range(num_levels - 1))), 0)


def padded_positions(num_positions: int) -> int:
    """Return the padded size of arrays over the positions of a finest level with `num_positions` positions."""
    return next((size for size in PADDED_POSITIONS if size >= num_positions), num_positions)


def pad_view(
    prediction: Prediction, is_mirrored: Array, disagreement: Float[Array, "n h w"] | None = None
) -> PaddedView:
    """Lay out the prediction for one view of a batch as padded arrays.

    Args:
      prediction: the prediction for N images of one size.
      is_mirrored: (N,) bool, whether the network saw them mirrored.
      disagreement: of the levels at each position of the finest level, if it is wanted.
    """
    n, height, width = prediction.level.shape
    num_levels, num_classes = len(prediction.probs), prediction.fused.shape[-1]
    size = padded_positions(height * width)
    cells = jnp.concatenate([probs.reshape(n, -1, num_classes) for probs in prediction.probs], axis=1)
    return PaddedView(
        cells=pad_rows(
            cells, -(-4 * size // 3)
        ),  # all coarser levels together have at most a third of the finest one's cells
        chosen=pad_rows(rows_of(prediction.level, num_levels, prediction.refinement), size),
        level=pad_rows(prediction.level.reshape(n, -1), size),
        level_counts=(prediction.level[..., None] == jnp.arange(num_levels)).sum((1, 2)),
        grid=jnp.tile(jnp.asarray([height, width], jnp.int32), (n, 1)),
        is_mirrored=is_mirrored,
        disagreement=None if disagreement is None else pad_rows(disagreement.reshape(n, -1), size),
        refinement=prediction.refinement,
    )


def unpad_view(view: PaddedView, unity: tuple[Float[Array, "n _ _"], ...], grid: tuple[int, int]) -> Prediction:
    """Read the prediction back from its padded layout.

    Args:
      view: a view of whole images, not of windows.
      unity: the unity pyramid, which the padded layout does not hold.
      grid: height and width of the finest level. Unlike `view.grid`, they are known when the program is compiled.
    """
    num_levels, (height, width) = len(unity) + 1, grid
    n, _, num_classes = view.cells.shape
    fused = jnp.take_along_axis(view.cells, view.chosen[:, : height * width, None], axis=1)
    probs, first = [], 0
    for times in halvings(num_levels, view.refinement):
        h, w = height >> times, width >> times
        probs.append(view.cells[:, first : first + h * w].reshape(n, h, w, num_classes))
        first += h * w
    level = view.level[:, : height * width].reshape(n, height, width)
    semantic = tuple(p.argmax(-1).astype(label_dtype(num_classes)) for p in probs)
    return Prediction(tuple(probs), fused.reshape(n, height, width, num_classes), level, unity, semantic)


def pad_rows(x: Shaped[Array, "n k *c"], size: int) -> Shaped[Array, "n {size} *c"]:
    """Pad the second axis with zeros to `size`."""
    return jnp.pad(x, ((0, 0), (0, size - x.shape[1]), *((0, 0),) * (x.ndim - 2)))


def rows_of(level: Int32[Array, "n h w"], num_levels: int, refinement: int) -> Int32[Array, "n p"]:
    """Return the row of the table of cells that each finest-level position takes, given its level; see `PaddedView`."""
    height, width = level.shape[1:]
    rows, first = jnp.zeros_like(level), 0
    for i, times in enumerate(halvings(num_levels, refinement)):
        h, w = height >> times, width >> times
        own = first + jnp.arange(h * w, dtype=jnp.int32).reshape(1, h, w)
        rows = jnp.where(level == i, to_children(own, height // h), rows)
        first += h * w
    return rows.reshape(len(level), -1)
