"""How sure a prediction is at each pixel: confidence, entropy, disagreement of the levels, and doubt about a given label."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt

from pyrseg_jax.conventions import label_dtype
from pyrseg_jax.evaluation.padding import PaddedView, halvings
from pyrseg_jax.evaluation.pixels import (
    PIXELS_AT_A_TIME,
    level_of_pixels,
    mean_fused,
    mean_over_views,
    num_pieces,
)
from pyrseg_jax.evaluation.temperature import scaled_log_probs
from pyrseg_jax.models.resample import Index, Probs

MAPS = ("confidence", "entropy", "disagreement", "doubt")
POSITIONS_AT_A_TIME = 1 << 12  # of a finest level: four levels of 150 classes take 10 MB


class Measured(NamedTuple):
    """How sure the prediction for one image is: the maps of `maps_of_batch`, all (H, W) float32.

    labels: (H, W) predicted train ids.
    disagreement: None for a network without pyramid, and for protocols that cut images into windows.
    doubt: None without a label map.
    """

    labels: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    disagreement: np.ndarray | None
    doubt: np.ndarray | None


@functools.partial(jax.jit, static_argnames=("padded_size", "names"))
def maps_of_batch(
    views: Sequence[PaddedView],
    sizes: Int32[Array, "n 2"],
    padded_size: int,
    names: tuple[str, ...],
    temperatures: Float[Array, "l"],
    truth: UInt[Array, "n {padded_size}"] | None = None,
) -> tuple[UInt[Array, "n {padded_size}"], dict[str, Float32[Array, "n {padded_size}"]], Bool[Array, "n"]]:
    """Return the class of every pixel of a batch of images, as `pixels.labels_of_pixels` does, and maps that say how sure it is.

    With p, the probabilities of a pixel after temperature scaling (see `temperature`), of C classes:

      confidence = max_c p(c), that of the pixel's class;
      entropy = -Σ_c p(c) log p(c) / log C, 0 where a single class is possible and 1 where all are equally likely;
      disagreement: see `jensen_shannon`; computed at the positions of the finest level, then interpolated like probabilities;
      doubt = max_c log p(c) - log p(label) in nats, 0 where the label is the most likely class, and at void.

    Args:
      views: the views of the batch; their probabilities and disagreements are averaged.
      sizes: (N, 2) height and width of each image in pixels.
      padded_size: the size that `padded_pixels` returns for each of them.
      names: which maps, some of `MAPS`.
      temperatures: (L,) T of each level; ones leave probabilities as they are.
      truth: (N, A) train ids, row by row; needed for the doubt.

    Returns:
      (N, A) classes; the maps (N, A) by name; and whether all probabilities of each image are numbers.
    """

    def find(image: tuple) -> tuple:
        return _maps_of_image(*image, padded_size, names, temperatures)

    batch = (list(views), sizes, truth)
    if len(sizes) == 1:
        labels, maps = jax.tree.map(lambda x: x[None], find(jax.tree.map(lambda x: x[0], batch)))
    else:
        labels, maps = jax.lax.map(find, batch)
    is_number = jnp.stack([~jnp.isnan(view.cells).any((1, 2)) for view in views]).all(0)
    return labels, maps, is_number


def _maps_of_image(
    views: list[PaddedView],
    size: Int32[Array, "2"],
    truth: UInt[Array, " a"] | None,
    padded_size: int,
    names: tuple[str, ...],
    temperatures: Float[Array, "l"],
) -> tuple[Array, dict[str, Array]]:
    num_classes = views[0].cells.shape[-1]
    dtype = label_dtype(num_classes)
    disagreements = [_lookup(disagreement_of_positions(view)) for view in views] if "disagreement" in names else []

    def fill(i: Array, found: tuple) -> tuple:
        at = i * PIXELS_AT_A_TIME
        pixels = at + jnp.arange(PIXELS_AT_A_TIME)
        probs = mean_fused(views, pixels, size)
        logs = scaled_log_probs(probs, temperatures[level_of_pixels(views[0], pixels, size)])
        pieces = {}
        if "confidence" in names:
            pieces["confidence"] = jnp.exp(logs.max(-1))
        if "entropy" in names:
            pieces["entropy"] = entropy(jnp.exp(logs)) / jnp.log(max(num_classes, 2))
        if "disagreement" in names:
            pieces["disagreement"] = mean_over_views(views, disagreements, pixels, size)[:, 0]
        if "doubt" in names:
            true = jax.lax.dynamic_slice(truth, (at,), (PIXELS_AT_A_TIME,)).astype(jnp.int32)
            of_label = jnp.take_along_axis(logs, jnp.minimum(true, num_classes - 1)[:, None], axis=1)[:, 0]
            pieces["doubt"] = jnp.where(true < num_classes, logs.max(-1) - of_label, 0)
        new = probs.argmax(-1).astype(dtype), {name: pieces[name].astype(jnp.float32) for name in names}
        return jax.tree.map(lambda all, piece: jax.lax.dynamic_update_slice(all, piece, (at,)), found, new)

    empty = jnp.zeros(padded_size, dtype), {name: jnp.zeros(padded_size, jnp.float32) for name in names}
    return jax.lax.fori_loop(0, num_pieces(size), fill, empty)


def entropy(probs: Float[Array, "*k c"]) -> Float[Array, "*k"]:
    """Return -Σ p log p over the last axis, in nats; 0 · log 0 is 0."""
    return -jnp.where(probs > 0, probs * jnp.log(jnp.where(probs > 0, probs, 1)), 0).sum(-1)


def jensen_shannon(probs: Float[Array, "l *k c"]) -> Float[Array, "*k"]:
    """Return how much the distributions p_1 … p_L of L levels disagree, from 0 (all are equal) to 1 (as different as can be).

      D = (H(1/L Σ_l p_l) - 1/L Σ_l H(p_l)) / log min(L, C)

    This is the Jensen-Shannon divergence: what one learns about the class by being told which level speaks. A single level, or a
    single class, cannot disagree: 0.

    Source: Lin 1991, Eq. (5.1), with equal weights; its bound is log L. The same quantity says how much the members of an ensemble
      disagree; here the members are the levels of one network, which one pass computes anyway.
    """
    most = min(probs.shape[0], probs.shape[-1])
    if most < 2:
        return jnp.zeros(probs.shape[1:-1])
    found = (entropy(probs.mean(0)) - entropy(probs).mean(0)) / jnp.log(most)
    return jnp.clip(found, 0, 1)  # rounding may lead a little below 0


def disagreement_of_positions(view: PaddedView) -> Float[Array, "p"]:
    """Return `jensen_shannon` of all levels at each position of the finest level, for a view of one whole image.

    A cell of a coarser level speaks for all positions inside of it.
    """
    num_positions = view.chosen.shape[0]
    at_a_time = min(POSITIONS_AT_A_TIME, num_positions)

    def fill(i: Array, found: Array) -> Array:
        start = jnp.minimum(i * at_a_time, num_positions - at_a_time)
        piece = jensen_shannon(view.cells[_rows_at(view, start + jnp.arange(at_a_time))])
        return jax.lax.dynamic_update_slice(found, piece, (start,))

    pieces = (view.grid[0] * view.grid[1] + at_a_time - 1) // at_a_time
    return jax.lax.fori_loop(0, pieces, fill, jnp.zeros(num_positions))


def _rows_at(view: PaddedView, positions: Index) -> Int32[Array, "l k"]:
    """Return the row of the table of cells that each level has at some positions of the finest level."""
    height, width = view.grid
    row, column = positions // width, positions % width
    rows, first = [], 0
    for times in halvings(view.level_counts.shape[-1], view.refinement):
        rows.append(first + (row >> times) * (width >> times) + (column >> times))
        first += (height >> times) * (width >> times)
    return jnp.stack(rows)


def _lookup(values: Float[Array, "p"]) -> Callable[[Index], Probs]:
    return lambda at: values[at][:, None]
