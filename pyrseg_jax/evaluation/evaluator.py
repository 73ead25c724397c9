"""Evaluation of a whole split: confusion matrix on the device, exact however the last batch is filled."""

import logging
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pyrseg_jax import parallel
from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.pipeline import EvaluationBatch, evaluation_batches
from pyrseg_jax.data.source import Source
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.inference import canvas_of, run_network, upsample_argmax
from pyrseg_jax.evaluation.metrics import best_constant_miou, confusion_matrix, scores

log = logging.getLogger(__name__)


class Evaluator:
    """Score a network on a split: `evaluator(variables)`.

    Args:
      model: the segmenter.
      source: records of the split.
      label_space: its classes.
      mesh: each batch is split over its data axis.
      network_size: (height, width) of an image → those that the network sees.
      batch_size: images at a time; rounded up to a multiple of the mesh's data axis.
      threshold: τ of the fuser.
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        label_space: LabelSpace,
        mesh: Mesh,
        network_size: Callable,
        batch_size: int,
        threshold: float,
    ):
        self._source, self._label_space, self._network_size = source, label_space, network_size
        self._mesh = mesh
        groups = mesh.shape["data"]
        self._batch_size = -(-batch_size // groups) * groups
        self._step = _make_step(model, label_space.num_classes, threshold, mesh)

    def __call__(self, variables: dict) -> dict:
        """Return the scores of `metrics.scores` and how the pyramid was used; see `docs/evaluation.md` for the keys.

        Raises:
          UserError: naming the file, if an image or label cannot be read.
        """
        start = time.perf_counter()
        totals: dict[str, np.ndarray] = {}
        pending: dict[str, jax.Array] = {}
        num_images, num_pixels = 0, 0
        batches = evaluation_batches(self._source, self._label_space, self._network_size, self._batch_size, canvas_of)
        for batch in batches:
            sums = self._step(variables, parallel.to_devices(self._mesh, _as_arrays(batch)))
            num_images += batch.num_images
            num_pixels += int(batch.sizes[: batch.num_images].astype(np.int64).prod(1).sum())
            # Fetched one batch late, so that the device never waits.
            totals, pending = _add(totals, pending), sums
        if not num_images:
            raise UserError("there is no image to evaluate: the split is empty")
        totals = _add(totals, pending)
        result = scores(totals["confusion"], self._label_space.names)
        level_counts = totals["level_counts"]
        # A cell of level index i covers 4^(L-1-i) positions of the finest level.
        cells = level_counts / 4.0 ** np.arange(len(level_counts))[::-1]
        result |= {
            "best_constant_miou": best_constant_miou(totals["confusion"]) if totals["confusion"].sum() else None,
            "level_share": (level_counts / level_counts.sum()).tolist(),
            "cells_per_image": float(cells.sum() / num_images),
            "pixels_per_image": num_pixels / num_images,
            "images": num_images,
            "compiled_programs": self._step._cache_size(),
            "seconds": time.perf_counter() - start,
        }
        return result


def _as_arrays(batch: EvaluationBatch) -> dict[str, np.ndarray]:
    is_real = np.arange(len(batch.images)) < batch.num_images
    return {"images": batch.images, "labels": batch.labels, "sizes": batch.sizes, "is_real": is_real}


def _add(totals: dict[str, np.ndarray], sums: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    """Add a batch's sums to the totals in 64 bits: a large split has more pixels than 32 can count."""
    return totals | {name: totals.get(name, 0) + np.asarray(value).astype(np.int64) for name, value in sums.items()}


def _make_step(model: nn.Module, num_classes: int, threshold: float, mesh: Mesh) -> Callable:
    """Make the jitted function that scores one batch; its results are sums over the batch."""

    def step(variables: dict, batch: dict) -> dict:
        sizes, is_real = batch["sizes"], batch["is_real"]
        outputs = run_network(model, variables, batch["images"], threshold)
        canvas = batch["labels"].shape[1:]
        predicted = jax.vmap(lambda probs, size: upsample_argmax(probs, size, canvas))(outputs.probs, sizes)
        labels = jnp.where(is_real[:, None, None], batch["labels"], VOID)
        num_levels = len(outputs.semantic)
        is_level = outputs.level[..., None] == jnp.arange(num_levels)
        level_counts = (is_level & is_real[:, None, None, None]).sum((0, 1, 2))
        return {"confusion": confusion_matrix(labels, predicted, num_classes), "level_counts": level_counts}

    whole, rows = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    return jax.jit(step, in_shardings=(whole, rows), out_shardings=whole)
