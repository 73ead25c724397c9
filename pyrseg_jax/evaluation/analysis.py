"""Compare a prediction with the ground truth cell by cell: score the unity pyramid, and fuse with true pyramids."""

from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Int32, Integer

from pyrseg_jax.evaluation.padding import halvings, pad_rows, padded_positions, rows_of
from pyrseg_jax.evaluation.predict import Prediction, fuse_pyramids
from pyrseg_jax.pyramid import Targets, build_targets
from pyrseg_jax.pyramid.levels import DONT_CARE, dont_care_of, to_children


@flax.struct.dataclass
class PaddedTruth:
    """Results of fusing with one of the two pyramids replaced by the truth, in the padded layout of `padding.PaddedView`.

    Attributes:
      chosen: (N, P) the row of `PaddedView.cells` that each finest-level position takes with the true unity pyramid.
      classes: (N, P) the class of the true semantic pyramid at the level that the predicted unity pyramid gives.
    """

    chosen: Any  # not annotated more closely: jax also builds this class from single images and shardings
    classes: Any


def compare_with_truth(
    prediction: Prediction, labels: Integer[Array, "n h w"], threshold: float
) -> tuple[PaddedTruth, dict[str, Array]]:
    """Compare the predicted pyramids of a batch with those of its label maps.

    Args:
      prediction: the prediction for N images.
      labels: train ids (N, H, W) at the size of the network's input; images that must not count are all void.
      threshold: τ of the fuser, 0 … 1.

    Returns:
      The results with true pyramids, and counts per image for each level above the finest, without don't-care cells:
      `unity_true`, `unity_predicted` and `unity_both` (N, L-1) are numbers of unit-cells, and `unit_cells` (N, L-1, C) are
      the numbers of true unit-cells of each class.
    """
    num_levels, num_classes = len(prediction.probs), prediction.fused.shape[-1]
    stride = labels.shape[1] // prediction.level.shape[1]
    strides = tuple(stride << times for times in halvings(num_levels, prediction.refinement))
    targets = _targets(labels, strides)
    is_unit = [(unity == 1).astype(jnp.float32) for unity in targets.unity]
    true_level = fuse_pyramids(prediction.probs, is_unit, threshold).level
    _, height, width = prediction.level.shape
    size = padded_positions(height * width)
    truth = PaddedTruth(
        chosen=pad_rows(rows_of(true_level, num_levels, prediction.refinement), size),
        classes=pad_rows(_true_classes(labels, targets, strides, prediction.level), size),
    )
    return truth, _count_unit_cells(prediction.unity, targets, threshold, num_classes)


def _targets(labels: Integer[Array, "n h w"], strides: tuple[int, ...]) -> Targets:
    """Build the targets of all levels, of which the finest may be refined: it has no unity targets, and depends on no other."""
    *coarse, finest = strides
    if len(coarse) == 0 or coarse[-1] == 2 * finest:
        return build_targets(labels, strides)
    semantic, unity = build_targets(labels, (*coarse, coarse[-1] // 2))
    return Targets((*semantic[:-1], *build_targets(labels, (finest,)).semantic), unity)


def _true_classes(
    labels: Integer[Array, "n h w"], targets: Targets, strides: tuple[int, ...], level: Int32[Array, "n h2 w2"]
) -> Int32[Array, "n p"]:
    """Return the true class of the cell that decides each position. A mixed-cell takes the class at its center."""
    found = jnp.zeros_like(level)
    for i, (stride, semantic) in enumerate(zip(strides, targets.semantic, strict=True)):
        center = labels[:, stride // 2 :: stride, stride // 2 :: stride].astype(jnp.int32)
        classes = jnp.where(semantic == dont_care_of(semantic), center, semantic)
        found = jnp.where(level == i, to_children(classes, stride // strides[-1]), found)
    return found.reshape(len(level), -1)


def _count_unit_cells(
    unity: tuple[Array, ...], targets: Targets, threshold: float, num_classes: int
) -> dict[str, Array]:
    n = targets.semantic[0].shape[0]
    found = {name: [] for name in ("unity_true", "unity_predicted", "unity_both", "unit_cells")}
    for probs, truth, semantic in zip(unity, targets.unity, targets.semantic[:-1], strict=True):
        is_cared, is_unit, is_predicted = truth != DONT_CARE, truth == 1, probs >= threshold
        found["unity_true"].append(is_unit.sum((1, 2)))
        found["unity_predicted"].append((is_predicted & is_cared).sum((1, 2)))
        found["unity_both"].append((is_predicted & is_unit).sum((1, 2)))
        found["unit_cells"].append((semantic[..., None] == jnp.arange(num_classes)).sum((1, 2)))
    # Without a pyramid there is only the finest level, so the lists are empty.
    empty = {"unit_cells": jnp.zeros((n, 0, num_classes), jnp.int32)}
    return {
        name: jnp.stack(values, axis=1) if values else empty.get(name, jnp.zeros((n, 0), jnp.int32))
        for name, values in found.items()
    }
