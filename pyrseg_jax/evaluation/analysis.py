"""From the sums of an evaluation to its scores: the paper's Table 2b, Table 2c and Fig. 3, and how the pyramids are used."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from pyrseg_jax.conventions import VOID
from pyrseg_jax.evaluation.metrics import scores

BOUNDARY_PX = 8
Sums = Mapping[str, np.ndarray]


def near_boundary(labels: UInt8[np.ndarray, "h w"], distance_px: int = BOUNDARY_PX) -> Bool[np.ndarray, "h w"]:
    """Return which pixels are within `distance_px` (Chebyshev) of a semantic boundary.

    Source: Sec. 4.1, "within an eight-pixel range" (Table 2b).
    Chosen: a boundary pixel is a labelled one beside, above or below a labelled one of another class. Void makes no boundary.
    """
    is_boundary = np.zeros(labels.shape, np.uint8)
    is_labelled = labels != VOID
    for axis in (0, 1):
        first, second = (slice(None, -1), slice(1, None))
        a, b = (
            ((first, slice(None)), (second, slice(None)))
            if axis == 0
            else ((slice(None), first), (slice(None), second))
        )
        differs = (labels[a] != labels[b]) & is_labelled[a] & is_labelled[b]
        is_boundary[a] |= differs
        is_boundary[b] |= differs
    side = 2 * distance_px + 1
    return cv2.dilate(is_boundary, np.ones((side, side), np.uint8)).astype(bool)


def summarise(sums: Sums, names: Sequence[str]) -> dict:
    """Return the headline scores, those near boundaries and, where counted, the analysis; keys as in docs/guide/evaluation.md.

    Args:
      sums: totals over a split of `pixels.count_pixels` and, per image summed up, of `showing.show`.
      names: of the C classes.
    """
    fused = sums["fused"]
    confusion = fused.sum((0, 1))
    levels = sums["level_counts"]
    headline = scores(confusion, names)
    devkit = [headline["pixel_accuracy"], headline["miou_all_classes"]]
    result = headline | {
        "ade20k_score": None if None in devkit else sum(devkit) / 2,
        "boundary_miou": scores(fused[1].sum(0), names)["miou"],
        "boundary_px": BOUNDARY_PX,
        "level_share": (levels / levels.sum()).tolist(),
        "confusion": confusion.tolist(),
    }
    if "alone" not in sums:
        return result | dict.fromkeys(("level_miou", "level_iou", "unity", "unit_cells", "oracle"))
    alone = sums["alone"]
    iou_of_levels = [scores(matrices.sum(0), names)["iou"] for matrices in alone]
    return result | {
        "level_miou": [[scores(matrix, names)["miou"] for matrix in row] for row in alone],
        "level_iou": {name: [iou[name] for iou in iou_of_levels] for name in names},
        "unity": _unity(sums),
        "unit_cells": {name: column.tolist() for name, column in zip(names, sums["unit_cells"].T, strict=True)},
        "oracle": {
            "true_unity_miou": scores(sums["oracle"][0], names)["miou"],
            "true_semantic_miou": scores(sums["oracle"][1], names)["miou"],
        },
    }


def _unity(sums: Sums) -> dict[str, list[float | None]]:
    both, predicted, true = (sums[f"unity_{name}"] for name in ("both", "predicted", "true"))
    return {
        "precision": [_ratio(*pair) for pair in zip(both, predicted, strict=True)],
        "recall": [_ratio(*pair) for pair in zip(both, true, strict=True)],
    }


def _ratio(part: np.integer, whole: np.integer) -> float | None:
    return float(part / whole) if whole else None
