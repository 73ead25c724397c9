"""Fit the temperatures of a network on a split, and measure what they change."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.source import Source
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.batches import EvaluationBatch, evaluation_batches
from pyrseg_jax.evaluation.padding import PaddedView
from pyrseg_jax.evaluation.pixels import PIXELS_AT_A_TIME, level_of_pixels, mean_fused, num_pieces
from pyrseg_jax.evaluation.reliability import count_choices, no_confidences, summarize_confidences
from pyrseg_jax.evaluation.temperature import fit_temperatures, slopes_of_loss
from pyrseg_jax.evaluation.view_predictor import ViewPredictor
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.models.segmenter import Segmenter

log = logging.getLogger(__name__)

PIXELS_OF_AN_IMAGE = 1 << 12  # that the fit uses, spread over the image: neighbors tell little more


class Fitted(NamedTuple):
    """Temperatures, and what they change.

    temperatures: T of each level, coarse → fine, fitted on all images.
    pixels: the labeled pixels that each level decides.
    num_images: of the split.
    before, after: scores of `reliability.summarize_confidences`, and `nll`, the mean of -log p(true class) in nats. Those `after`
      are cross-validated: each half of the images is scored with the temperatures of the other half.
    """

    temperatures: tuple[float, ...]
    pixels: tuple[int, ...]
    num_images: int
    before: dict
    after: dict


class Calibrator:
    """Fit temperatures: `calibrator(variables)`.

    Args:
      model: the segmenter.
      source: records of the split.
      label_space: the classes.
      protocol: the evaluation protocol.
      batch_size: images per batch.
      threshold: τ of the fuser. The unity pyramid is left alone, so each pixel keeps its level.
    """

    def __init__(
        self,
        model: Segmenter,
        source: Source,
        label_space: LabelSpace,
        protocol: Protocol,
        batch_size: int,
        threshold: float,
    ):
        self._source, self._label_space, self._protocol, self._batch_size = source, label_space, protocol, batch_size
        self._predict_views = ViewPredictor(model, protocol, threshold)

    def __call__(self, variables: dict) -> Fitted:
        """Fit and measure; this sees each image twice.

        Raises:
          UserError: naming the file, if an image or label cannot be read; if no pixel is labeled, or probabilities are not numbers.
        """
        slopes = self._slopes(variables)
        total = sum(slopes.values(), start=np.zeros(1))
        if not np.any(total):
            raise UserError("there is no labeled pixel to calibrate on: the split is empty, or all of it is void")
        # Two halves that depend neither on the order of the images nor on their names.
        half_of = {digest: index % 2 for index, digest in enumerate(sorted(slopes))}
        halves = [sum((slopes[d] for d in slopes if half_of[d] == half), start=np.zeros_like(total)) for half in (0, 1)]
        # A single image has no other half; then it is scored with its own temperatures.
        crossed = [fit_temperatures(halves[1 - half] if halves[1 - half].any() else total) for half in (0, 1)]
        log.info("measuring the confidences before and after")
        counts: np.ndarray = np.zeros((2, 1, 1, 1), np.int64)
        losses = np.zeros(2)
        for batch, views in self._predicted(variables):
            scaled = np.ones((len(batch.sizes), 2, total.shape[0]), np.float32)
            for i, digest in enumerate(batch.digests):
                scaled[i, 1] = crossed[half_of[digest]]
            found, loss = _measure(views, batch.labels, batch.sizes, scaled)
            counts = counts + np.asarray(found).astype(np.int64)
            losses += np.asarray(loss, np.float64).sum(0)
        pixels = counts[0, :, :, 0].sum(-1)
        before, after = (
            summarize_confidences(c) | {"nll": float(loss / pixels.sum())}
            for c, loss in zip(counts, losses, strict=True)
        )
        return Fitted(fit_temperatures(total), tuple(pixels.tolist()), len(self._source), before, after)

    def _slopes(self, variables: dict) -> dict[bytes, np.ndarray]:
        """Return the slopes of the loss (L, G, 2) on each image, by digest."""
        slopes = {}
        for batch, views in self._predicted(variables):
            found = np.asarray(_slopes_of_batch(views, batch.labels, batch.sizes), np.float64)
            if not np.isfinite(found).all():
                raise UserError(
                    "the network's probabilities are not numbers (NaN): its weights are damaged, or its training diverged; use "
                    "another checkpoint"
                )
            slopes |= dict(zip(batch.digests, found, strict=False))  # images come before the padding of a batch
        return slopes

    def _predicted(self, variables: dict) -> Iterator[tuple[EvaluationBatch, list[PaddedView]]]:
        for batch in evaluation_batches(self._source, self._label_space, self._protocol.sizes, self._batch_size):
            yield batch, self._predict_views(variables, batch.images)[0]


@jax.jit
def _slopes_of_batch(
    views: Sequence[PaddedView], labels: UInt[Array, "n a"], sizes: Int32[Array, "n 2"]
) -> Float[Array, "n l g 2"]:
    """Return `slopes_of_loss` of some pixels of each image."""

    def of_image(image: tuple) -> Array:
        views, labels, size = image
        num_pixels = size[0] * size[1]
        # An odd step meets all columns of an image whose width is a power of two.
        step = (num_pixels // PIXELS_OF_AN_IMAGE) | 1
        pixels = step * jnp.arange(PIXELS_OF_AN_IMAGE)
        is_inside = pixels < num_pixels
        pixels = jnp.where(is_inside, pixels, 0)
        probs = mean_fused(views, pixels, size)
        true = jnp.where(is_inside, labels[pixels].astype(jnp.int32), probs.shape[-1])
        level = level_of_pixels(views[0], pixels, size)
        return slopes_of_loss(probs, true, level, views[0].level_counts.shape[-1])

    return jax.lax.map(of_image, (list(views), labels, sizes))


@jax.jit
def _measure(
    views: Sequence[PaddedView],
    labels: UInt[Array, "n a"],
    sizes: Int32[Array, "n 2"],
    temperatures: Float[Array, "n v l"],
) -> tuple[Int32[Array, "v l b 2"], Float[Array, "n v"]]:
    """Count confidences for V choices of temperatures, over the batch; also return the sum of -log p(true class) of each image."""
    num_levels, num_choices = views[0].level_counts.shape[-1], temperatures.shape[1]

    def add_image(counts: Array, image: tuple) -> tuple[Array, Array]:
        views, labels, size, temperatures = image

        def add_piece(i: Array, found: tuple) -> tuple:
            counts, losses = found
            start = i * PIXELS_AT_A_TIME
            pixels = start + jnp.arange(PIXELS_AT_A_TIME)
            true = jax.lax.dynamic_slice(labels, (start,), (PIXELS_AT_A_TIME,)).astype(jnp.int32)
            probs = mean_fused(views, pixels, size)
            is_labeled = (pixels < size[0] * size[1]) & (true < probs.shape[-1])
            level = level_of_pixels(views[0], pixels, size)
            new, more = count_choices(counts, probs, true, is_labeled, level, temperatures)
            return new, losses + more

        after, losses = jax.lax.fori_loop(0, num_pieces(size), add_piece, (counts, jnp.zeros(num_choices)))
        return after, losses

    none = jnp.stack([no_confidences(num_levels)] * num_choices)
    return jax.lax.scan(add_image, none, (list(views), labels, sizes, temperatures))
