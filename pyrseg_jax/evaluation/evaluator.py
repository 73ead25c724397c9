"""Evaluate a whole split: confusion matrices are counted on the device and stay exact whatever the batch size."""

import functools
import hashlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt

from pyrseg_jax.conventions import void_of
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.source import Source
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.analysis import PaddedTruth, compare_with_truth
from pyrseg_jax.evaluation.batches import EvaluationBatch, evaluation_batches
from pyrseg_jax.evaluation.image_scores import collect_counts, image_scores, to_lists
from pyrseg_jax.evaluation.metrics import best_constant_miou
from pyrseg_jax.evaluation.padding import PaddedView, unpad_view
from pyrseg_jax.evaluation.pixel_counts import count_pixels
from pyrseg_jax.evaluation.pixels import labels_of_pixels, padded_pixels
from pyrseg_jax.evaluation.programs import num_compiled
from pyrseg_jax.evaluation.reliability import summarize_confidences
from pyrseg_jax.evaluation.summary import summarize
from pyrseg_jax.evaluation.view_predictor import ImageLosses, ViewPredictor
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.models.segmenter import Segmenter

log = logging.getLogger(__name__)


class Evaluator:
    """Score a network on a split: `evaluator(variables)`.

    Args:
      model: the segmenter.
      source: records of the split.
      label_space: the classes.
      mesh: the mesh; each batch is split over its data axis. All of its devices belong to this process.
      protocol: the evaluation protocol.
      batch_size: images per batch, rounded up to a multiple of the mesh's data axis.
      threshold: τ of the fuser.
      image_losses: the loss of each image, for the validation loss; None: there is none.
      is_calibration_measured: whether to measure how true confidences are.
      temperatures: T of each level, to measure it with them, too.
    """

    def __init__(
        self,
        model: Segmenter,
        source: Source,
        label_space: LabelSpace,
        mesh: Mesh,
        protocol: Protocol,
        batch_size: int,
        threshold: float,
        image_losses: ImageLosses | None = None,
        is_calibration_measured: bool = False,
        temperatures: tuple[float, ...] | None = None,
    ):
        self._source, self._label_space, self._mesh, self._protocol = source, label_space, mesh, protocol
        groups = mesh.shape["data"]
        self._batch_size = -(-batch_size // groups) * groups
        self._strides = model.prediction_strides
        rows = mesh_lib.batch_sharding(mesh)
        self._predict_views = ViewPredictor(model, protocol, threshold, mesh_lib.replicated(mesh), rows, image_losses)
        # A small program beside the network's: evaluations without the analysis never build targets.
        self._compare = jax.jit(
            functools.partial(_compare, self._strides[-1], threshold), in_shardings=rows, out_shardings=rows
        )
        self._temperatures = temperatures
        choices: tuple[tuple[float, ...], ...] = ()
        if is_calibration_measured:
            ones = (1.0,) * model.num_predicted_levels
            choices = (ones,) if temperatures is None else (ones, temperatures)
        # Two functions, so that the number of programs that an evaluation reports does not depend on earlier evaluations.
        self._count = {is_analyzed: jax.jit(functools.partial(_count, mesh, choices)) for is_analyzed in (False, True)}

    def __call__(self, variables: dict, is_analyzed: bool = False) -> dict:
        """Return the scores, and how the pyramid was used; docs/guide/evaluation.md explains the keys.

        Args:
          variables: the model's variables.
          is_analyzed: whether to analyze the pyramid, too. Ignored for protocols with several views per pixel.

        Raises:
          UserError: naming the file, if an image or label cannot be read; or if the split is empty.
        """
        start = time.perf_counter()
        share = self._count_share(variables, is_analyzed and self._predict_views.is_single)
        shares = processes.gather(share)
        totals = functools.reduce(_add, (share.totals for share in shares))
        num_images = sum(len(share.images) for share in shares)
        if not num_images:
            raise UserError("there is no image to evaluate: the split is empty")
        levels = totals["level_counts"]
        # A cell covers as many positions of the finest level as the square of the ratio of their strides.
        cells = levels / (np.array(self._strides[-len(levels) :]) / self._strides[-1]) ** 2
        confusion = totals["fused"].sum((0, 1))
        images = collect_counts(share.images for share in shares)
        names = self._label_space.names
        return (
            summarize(totals, names)
            | image_scores(images, names)
            | {
                "best_constant_miou": best_constant_miou(confusion) if confusion.sum() else None,
                "cells_per_image": float(cells.sum() / num_images),
                "pixels_per_image": sum(share.num_pixels for share in shares) / num_images,
                "calibration": _calibration(totals.get("confidences"), self._temperatures),
                "loss": _mean_loss(itertools.chain(*(share.losses for share in shares))),
                "images": num_images,
                "fingerprint": _fingerprint(digest for share in shares for digest, _ in share.images),
                "image_counts": to_lists(images),
                "compiled_programs": max(share.num_programs for share in shares),
                "seconds": time.perf_counter() - start,
            }
        )

    def samples(self, variables: dict, source: Source) -> "Iterator[Sample]":
        """Segment other images as an evaluation does, with its programs; yield them by size, at the size that the network sees.

        Args:
          variables: the model's variables.
          source: records of the same data set.

        Raises:
          UserError: naming the file, if an image or label cannot be read.
        """
        for batch in evaluation_batches(source, self._label_space, self._protocol.sizes, self._batch_size):
            views, _, _ = self._predict_views.with_losses(variables, batch.images, batch.view_labels)
            height, width = batch.view_labels.shape[1:]
            for i in range(len(batch.digests)):
                of_image = [jax.tree.map(lambda x, i=i: x[i : i + 1], view) for view in views]
                size = np.array([height, width], np.int32)
                labels = np.asarray(labels_of_pixels(of_image, size, padded_pixels(height * width)))
                labels = labels[: height * width].reshape(height, width)
                yield Sample(batch.images[0][i], batch.view_labels[i], labels)

    def _count_share(self, variables: dict, is_analyzed: bool) -> "_Share":
        """Count the images of this process.

        The processes do not need each other here: they have images of other sizes, and other numbers of batches.
        """
        totals: dict[str, np.ndarray] = {}
        pending: dict[str, jax.Array] = {}
        losses: list[tuple[jax.Array, np.ndarray]] = []
        images: list[tuple[bytes, np.ndarray]] = []
        waiting: tuple[tuple[bytes, ...], Any] = ((), ())
        num_pixels = 0
        count = self._count[is_analyzed]
        for batch in evaluation_batches(self._source, self._label_space, self._protocol.sizes, self._batch_size):
            counts, rows, image_losses = self._count_batch(variables, batch, count, is_analyzed)
            num_pixels += int(batch.sizes[batch.is_real].astype(np.int64).prod(1).sum())
            # Fetched one batch late, so that the device never waits.
            totals, pending = _add(totals, pending), counts
            images += zip(waiting[0], np.asarray(waiting[1]), strict=False)
            waiting = batch.digests, rows
            if image_losses is not None:
                losses.append(
                    (image_losses, batch.is_real & (batch.view_labels != void_of(batch.view_labels.dtype)).any((1, 2)))
                )
        num_programs = self._predict_views.num_programs() + num_compiled(count)
        num_programs += num_compiled(self._compare) if is_analyzed else 0
        images += zip(waiting[0], np.asarray(waiting[1]), strict=False)  # images come before the padding of a batch
        counted = [float(loss) for found, is_counted in losses for loss in np.asarray(found)[is_counted]]
        return _Share(_add(totals, pending), images, num_pixels, num_programs, counted)

    def _count_batch(
        self, variables: dict, batch: EvaluationBatch, count: Callable, is_analyzed: bool
    ) -> tuple[dict[str, jax.Array], jax.Array, jax.Array | None]:
        views, unity, losses = self._predict_views.with_losses(variables, batch.images, batch.view_labels)
        names = ("labels", "is_near_boundary", "sizes", "is_real")
        arrays = mesh_lib.to_devices(self._mesh, {name: getattr(batch, name) for name in names})
        truth, sums = None, {}
        if is_analyzed:
            labels = mesh_lib.to_devices(self._mesh, {"labels": batch.view_labels})["labels"]
            truth, sums = self._compare(views[0], unity, labels)
        return *count(views, truth, sums, arrays), losses


class Sample(NamedTuple):
    """An image at the size that the network sees: (H, W, C), its label map and the prediction for it, both (H, W) train ids."""

    image: np.ndarray
    truth: np.ndarray
    labels: np.ndarray


class _Share(NamedTuple):
    """The counts of one process.

    Attributes:
      totals: sums over its images.
      images: digest and counts (C, 3) of each image, see `pixel_counts.count_pixels`.
      num_pixels, num_programs: of its images, and of the compiled programs.
      losses: the loss of each of its images that has a labeled pixel.
    """

    totals: dict[str, np.ndarray]
    images: list[tuple[bytes, np.ndarray]]
    num_pixels: int
    num_programs: int
    losses: list[float]


def _calibration(counts: np.ndarray | None, temperatures: tuple[float, ...] | None) -> dict | None:
    """Summarize the counts of confidences; None if they were not counted."""
    if counts is None:
        return None
    before, *scaled = map(summarize_confidences, counts)
    return before | {"scaled": {"temperatures": list(temperatures or ())} | scaled[0] if scaled else None}


def _fingerprint(digests: Iterable[bytes]) -> str:
    """Combine the digests of all pairs of a split to one that does not depend on their order or on how they were shared out."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _mean_loss(losses: Iterable[float]) -> float | None:
    """Return the mean loss of the images with a labeled pixel; None without any, or if a loss is not a finite number."""
    values = list(losses)
    if not values or not all(map(math.isfinite, values)):
        return None
    # `fsum` rounds once, so the mean does not depend on the order of the images or on how they were shared out.
    return math.fsum(values) / len(values)


def _add(totals: dict[str, np.ndarray], sums: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Add a batch's sums to the totals in 64 bits, because a large split has more pixels than 32 bits can count."""
    return totals | {name: totals.get(name, 0) + np.asarray(value).astype(np.int64) for name, value in sums.items()}


def _compare(
    stride: int,
    threshold: float,
    view: PaddedView,
    unity: tuple[Float[Array, "n _ _"], ...],
    labels: UInt[Array, "n h w"],
) -> tuple[PaddedTruth, dict[str, Array]]:
    """Compare the prediction for one view with the truth; `stride` is that of the prediction."""
    height, width = labels.shape[1:]
    prediction = unpad_view(view, unity, (height // stride, width // stride))
    return compare_with_truth(prediction, labels, threshold)


def _count(
    mesh: Mesh,
    temperatures: tuple[tuple[float, ...], ...],
    views: list[PaddedView],
    truth: PaddedTruth | None,
    sums: dict[str, Array],
    batch: dict[str, Array],
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Sum up a batch: its pixels by `count_pixels`, and the sums that are known per image; also return the counts of each image."""
    pixels = batch["labels"], batch["is_near_boundary"], batch["sizes"]
    count = functools.partial(count_pixels, temperatures=temperatures)
    counts, rows = mesh_lib.sum_over_shards(count, mesh, views, truth, *pixels, has_rows=True)
    sums = sums | {"level_counts": views[0].level_counts}
    is_real = batch["is_real"].astype(jnp.int32)
    return counts | {name: jnp.tensordot(is_real, value, 1) for name, value in sums.items()}, rows
