"""The numbers of an evaluation, by the names under which TensorBoard and every tracker get them."""

from collections.abc import Mapping

# Keys of a result that are one number each; docs/guide/evaluation.md explains them.
SCORES = (
    *("miou", "miou_all_classes", "boundary_miou", "pixel_accuracy", "mean_accuracy", "mean_dice", "mean_precision", "mean_recall"),
    *("frequency_weighted_iou", "image_miou", "class_image_miou", "ade20k_score", "loss"),
)  # fmt: skip


def values_of_evaluation(result: Mapping) -> dict[str, float]:
    """Return `evaluation/SCORE`, `evaluation/level_share_N` with 1 for the coarsest level, and `iou/CLASS`.

    Args:
      result: what `Evaluator` returns. What it does not have, such as the IoU of a class that does not occur, is left out.
    """
    found = {f"evaluation/{name}": result[name] for name in SCORES if result.get(name) is not None}
    found |= {f"evaluation/level_share_{i}": share for i, share in enumerate(result.get("level_share") or (), 1)}
    return found | {f"iou/{name}": iou for name, iou in (result.get("iou") or {}).items() if iou is not None}
