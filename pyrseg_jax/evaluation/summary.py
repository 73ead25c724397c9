"""From the sums of an evaluation to its scores: the paper's Table 2b, Table 2c and Fig. 3, and how the pyramids are used."""

from collections.abc import Mapping, Sequence

import numpy as np

from pyrseg_jax.evaluation.boundary import BOUNDARY_PX
from pyrseg_jax.evaluation.metrics import class_scores, scores

Sums = Mapping[str, np.ndarray]


def summarize(sums: Sums, names: Sequence[str]) -> dict:
    """Return the main scores, those near boundaries and, if it was counted, the analysis of the pyramid.

    Args:
      sums: totals over a split: those of `pixel_counts.count_pixels`, `level_counts` (L,), and the sums of
        `analysis.compare_with_truth`.
      names: names of the C classes.

    Returns:
      A dict whose keys are those of docs/guide/evaluation.md. Without the analysis, its keys hold None.
    """
    fused = sums["fused"]
    confusion = fused.sum((0, 1))
    levels = sums["level_counts"]
    main = scores(confusion, names)
    devkit = [main["pixel_accuracy"], main["miou_all_classes"]]
    result = (
        main
        | class_scores(confusion, names)
        | {
            "ade20k_score": None if None in devkit else sum(devkit) / 2,
            "boundary_miou": scores(fused[1].sum(0), names)["miou"],
            "boundary_px": BOUNDARY_PX,
            "level_share": (levels / levels.sum()).tolist(),
            "confusion": confusion.tolist(),
        }
    )
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
    """Return precision and recall of the unit-cells of each level above the finest."""
    both, predicted, true = (sums[f"unity_{name}"] for name in ("both", "predicted", "true"))
    return {
        "precision": [_ratio(*pair) for pair in zip(both, predicted, strict=True)],
        "recall": [_ratio(*pair) for pair in zip(both, true, strict=True)],
    }


def _ratio(part: np.integer, whole: np.integer) -> float | None:
    return float(part / whole) if whole else None
