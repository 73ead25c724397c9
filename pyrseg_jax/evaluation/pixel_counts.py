"""Count the pixels of an evaluation: confusion matrices of the fused prediction, of each level alone, and with true pyramids."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, UInt

from pyrseg_jax.conventions import void_of
from pyrseg_jax.evaluation.analysis import PaddedTruth
from pyrseg_jax.evaluation.padding import PaddedView
from pyrseg_jax.evaluation.pixels import (
    PIXELS_AT_A_TIME,
    count_pairs,
    first_row_of_level,
    grid_of_level,
    level_of_pixels,
    mean_fused,
    num_pieces,
)
from pyrseg_jax.evaluation.reliability import count_choices, no_confidences
from pyrseg_jax.evaluation.winner_counts import count_winners
from pyrseg_jax.models.resample import Index, Probs, interpolate_at

# Sums over a batch, and the counts of each image.
Counted = tuple[dict[str, Int32[Array, "..."]], Int32[Array, "n c 3"]]


def count_pixels(
    views: Sequence[PaddedView],
    truth: PaddedTruth | None,
    labels: UInt[Array, "n a"],
    is_near_boundary: Bool[Array, "n a"],
    sizes: Int32[Array, "n 2"],
    temperatures: tuple[tuple[float, ...], ...] = (),
) -> Counted:
    """Return confusion matrices (row = truth, column = prediction), summed over a batch, and the counts of each image.

    Args:
      views: the views, each for the whole batch. The analysis needs exactly one.
      truth: the ground truth for the analysis; None leaves the analysis out.
      labels: (N, A) label maps, row by row; void pixels do not count.
      is_near_boundary: (N, A) whether a pixel is near a semantic boundary.
      sizes: (N, 2) height and width of each label map in pixels.
      temperatures: choices of a temperature for each level, whose confidences are counted; see `reliability`.

    Returns:
      A dict, and the counts of each image (N, C, 3): pixels of a class that are predicted rightly, that are predicted, and that are
      labeled, all without void. The dict holds
      fused: (2, L, C, C) of the fused prediction: for pixels far from and near a boundary, by the level that decides the
        finest-level position in which the pixel lies.
      With the analysis also
      alone: (L, L, C, C) of each level alone, by that level.
      oracle: (2, C, C) with the true unity and the predicted semantic pyramid, and the other way around.
      With V choices of temperatures also confidences: (V, L, B, 2), see `reliability.count_confidences`.
    """
    count_all = functools.partial(count_all_classes, temperatures=temperatures)
    batch = list(views), truth, labels, is_near_boundary, sizes
    if len(views) > 1:
        return count_all(*batch)

    def on_cpu(
        views: list[PaddedView], truth: PaddedTruth | None, labels: Array, is_near_boundary: Array, sizes: Array
    ) -> Counted:
        pixels = labels, is_near_boundary, sizes
        if not temperatures:
            return count_winners(views[0], truth, *pixels)
        # Confidences need the probabilities of all classes.
        sums, of_images = count_all(views, None, *pixels)
        return sums if truth is None else count_winners(views[0], truth, *pixels)[0] | sums, of_images

    return jax.lax.platform_dependent(*batch, cpu=on_cpu, default=count_all)


def count_all_classes(
    views: Sequence[PaddedView],
    truth: PaddedTruth | None,
    labels: UInt[Array, "n a"],
    is_near_boundary: Bool[Array, "n a"],
    sizes: Int32[Array, "n 2"],
    temperatures: tuple[tuple[float, ...], ...] = (),
) -> Counted:
    """Count as `count_pixels` does, interpolating all classes at all pixels: as all platforms but CPUs do."""
    num_levels, num_classes = views[0].level_counts.shape[-1], views[0].cells.shape[-1]
    shapes = {"fused": (2, num_levels)}
    if truth is not None:
        shapes |= {"alone": (num_levels, num_levels), "oracle": (2,)}
    zeros = {name: jnp.zeros((*shape, num_classes, num_classes), jnp.int32) for name, shape in shapes.items()}
    if temperatures:
        zeros["confidences"] = jnp.stack([no_confidences(num_levels)] * len(temperatures))

    def add_image(before: dict, image: tuple) -> tuple[dict, Array]:
        views, truth, labels, is_near, size = image

        def add_piece(i: Array, counts: dict) -> dict:
            start = i * PIXELS_AT_A_TIME
            pixels = start + jnp.arange(PIXELS_AT_A_TIME)
            true, near = (jax.lax.dynamic_slice(x, (start,), (PIXELS_AT_A_TIME,)) for x in (labels, is_near))
            true = jnp.where(pixels < size[0] * size[1], true, void_of(labels.dtype)).astype(jnp.int32)
            level = level_of_pixels(views[0], pixels, size)
            add = functools.partial(count_pairs, true=true)
            probs = mean_fused(views, pixels, size)
            fused = add(counts["fused"], near.astype(jnp.int32), level, predicted=probs.argmax(-1))
            counts = counts | {"fused": fused}
            if temperatures:
                counts = counts | _count_confidences(counts, probs, true, level, temperatures)
            if truth is None:
                return counts
            return counts | _count_analysis(counts, views[0], truth, pixels, size, level, add)

        after = jax.lax.fori_loop(0, num_pieces(size), add_piece, before)
        confusion = (after["fused"] - before["fused"]).sum((0, 1))
        return after, jnp.stack([jnp.diagonal(confusion), confusion.sum(0), confusion.sum(1)], axis=-1)

    return jax.lax.scan(add_image, zeros, (list(views), truth, labels, is_near_boundary, sizes))


def _count_confidences(
    counts: dict, probs: Probs, true: Index, level: Index, temperatures: tuple[tuple[float, ...], ...]
) -> dict:
    is_labeled = true < probs.shape[-1]
    found, _ = count_choices(counts["confidences"], probs, true, is_labeled, level, jnp.asarray(temperatures))
    return {"confidences": found}


def _count_analysis(
    counts: dict, view: PaddedView, truth: PaddedTruth, pixels: Index, size: Array, level: Index, add: Callable
) -> dict:
    """Count each level alone, and both oracles."""
    alone, oracle = counts["alone"], counts["oracle"]
    for i in range(len(alone)):
        first = first_row_of_level(view, len(alone), i)
        probs = interpolate_at(
            lambda at, first=first: view.cells[first + at], grid_of_level(view, len(alone), i), pixels, size
        )
        alone = add(alone, i, level, predicted=probs.argmax(-1))
    true_unity = interpolate_at(lambda at: view.cells[truth.chosen[at]], view.grid, pixels, size)
    num_classes = view.cells.shape[-1]
    true_semantic = interpolate_at(lambda at: jax.nn.one_hot(truth.classes[at], num_classes), view.grid, pixels, size)
    oracle = add(oracle, 0, predicted=true_unity.argmax(-1))
    return {"alone": alone, "oracle": add(oracle, 1, predicted=true_semantic.argmax(-1))}
