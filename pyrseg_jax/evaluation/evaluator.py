"""Evaluation of a whole split: confusion matrices on the device, exact however the last batch is filled."""

import functools
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.source import Source
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.analysis import summarise
from pyrseg_jax.evaluation.batches import evaluation_batches
from pyrseg_jax.evaluation.inference import Presenter
from pyrseg_jax.evaluation.metrics import best_constant_miou
from pyrseg_jax.evaluation.pixels import count_pixels
from pyrseg_jax.evaluation.views import Protocol

log = logging.getLogger(__name__)


class Evaluator:
    """Score a network on a split: `evaluator(variables)`.

    Args:
      model: the segmenter.
      source: records of the split.
      label_space: its classes.
      mesh: each batch is split over its data axis; all of its devices are this process's.
      protocol: how images are shown to the network.
      batch_size: images at a time; rounded up to a multiple of the mesh's data axis.
      threshold: τ of the fuser.
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        label_space: LabelSpace,
        mesh: Mesh,
        protocol: Protocol,
        batch_size: int,
        threshold: float,
    ):
        self._source, self._label_space, self._mesh, self._protocol = source, label_space, mesh, protocol
        groups = mesh.shape["data"]
        self._batch_size = -(-batch_size // groups) * groups
        self._present = Presenter(model, protocol, threshold, mesh_lib.replicated(mesh), mesh_lib.batch_sharding(mesh))
        # Apart, so that what an evaluation says of its programs does not depend on evaluations of the other kind before it.
        self._count = {kind: jax.jit(functools.partial(_count, mesh, is_analysed=kind)) for kind in (False, True)}

    def __call__(self, variables: dict, is_analysed: bool = False) -> dict:
        """Return the scores, and how the pyramid was used; see `docs/guide/evaluation.md` for the keys.

        Args:
          variables: of the model.
          is_analysed: count also what the analysis needs. Only where images are shown once: otherwise no pixel has one pyramid.

        Raises:
          UserError: naming the file, if an image or label cannot be read.
        """
        start = time.perf_counter()
        count = self._count[is_analysed and self._present.is_single]
        shares = processes.gather(self._count_share(variables, count))
        totals = functools.reduce(_add, (share.totals for share in shares))
        num_images = sum(share.num_images for share in shares)
        if not num_images:
            raise UserError("there is no image to evaluate: the split is empty")
        levels = totals["level_counts"]
        # A cell of level index i covers 4^(L-1-i) positions of the finest level.
        cells = levels / 4.0 ** np.arange(len(levels))[::-1]
        confusion = totals["fused"].sum((0, 1))
        return summarise(totals, self._label_space.names) | {
            "best_constant_miou": best_constant_miou(confusion) if confusion.sum() else None,
            "cells_per_image": float(cells.sum() / num_images),
            "pixels_per_image": sum(share.num_pixels for share in shares) / num_images,
            "images": num_images,
            "compiled_programs": max(share.num_programs for share in shares),
            "seconds": time.perf_counter() - start,
        }

    def _count_share(self, variables: dict, count: Callable) -> "_Share":
        """Count this process's images, which needs no other process: each has other sizes, and other numbers of batches."""
        totals: dict[str, np.ndarray] = {}
        pending: dict[str, jax.Array] = {}
        num_images, num_pixels = 0, 0
        batches = evaluation_batches(self._source, self._label_space, self._protocol.sizes, self._batch_size)
        for batch in batches:
            showings, sums, _ = self._present(variables, batch.images, batch.shown_labels)
            arrays = {name: getattr(batch, name) for name in ("labels", "is_near_boundary", "sizes", "is_real")}
            arrays = mesh_lib.to_devices(self._mesh, arrays)
            counts = count(showings, sums, arrays)
            num_images += int(batch.is_real.sum())
            num_pixels += int(batch.sizes[batch.is_real].astype(np.int64).prod(1).sum())
            # Fetched one batch late, so that the device never waits.
            totals, pending = _add(totals, pending), counts
        num_programs = self._present.num_programs() + count._cache_size()
        return _Share(_add(totals, pending), num_images, num_pixels, num_programs)


class _Share(NamedTuple):
    """What one process counted."""

    totals: dict[str, np.ndarray]
    num_images: int
    num_pixels: int
    num_programs: int


def _add(totals: dict[str, np.ndarray], sums: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Add a batch's sums to the totals in 64 bits: a large split has more pixels than 32 can count."""
    return totals | {name: totals.get(name, 0) + np.asarray(value).astype(np.int64) for name, value in sums.items()}


def _count(mesh: Mesh, showings, sums: dict, batch: dict, is_analysed: bool) -> dict[str, jax.Array]:
    """Sum up a batch: pixels by `count_pixels`, and what is known per image."""
    num_levels = sums["level_counts"].shape[1]
    count = functools.partial(count_pixels, num_levels=num_levels, is_analysed=is_analysed)
    counts = mesh_lib.sum_over_shards(count, mesh, showings, batch["labels"], batch["is_near_boundary"], batch["sizes"])
    is_real = batch["is_real"]
    return counts | {name: jnp.tensordot(is_real.astype(jnp.int32), value, 1) for name, value in sums.items()}
