"""Scores from a confusion matrix. Sums are carried over the whole split and divided once, at the end."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer


def scores(confusion: Integer[np.ndarray, "c c"], names: Sequence[str]) -> dict:
    """Turn a confusion matrix (row = truth, column = prediction) into scores, as fractions of 1.

    Args:
      confusion: (C, C) pixel counts.
      names: names of the C classes.

    Returns:
      A dict of
      miou: mean IoU over the classes present in the truth or the prediction;
      miou_all_classes: the same sum divided by all C classes, so that an absent class counts 0;
      classes_averaged: number of classes that `miou` averages;
      pixel_accuracy: share of labeled pixels that are correct;
      mean_accuracy: recall averaged over the classes present in the truth;
      iou: {name: IoU, or None for a class that is absent from both}.
      Without a labeled pixel the means are None.

    Chosen: systems differ in how an absent class counts. `miou` is mmsegmentation's convention; `miou_all_classes` is that of
      HRNet's own code and of the ADE20K devkit.
    """
    confusion = np.asarray(confusion, np.float64)
    right, of_truth, of_prediction = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    union = of_truth + of_prediction - right
    is_present = union > 0
    iou = np.divide(right, union, out=np.zeros_like(right), where=is_present)
    in_truth = of_truth > 0
    recall = np.divide(right, of_truth, out=np.zeros_like(right), where=in_truth)
    total = confusion.sum()
    return {
        "miou": float(iou[is_present].mean()) if total else None,
        "miou_all_classes": float(iou.mean()) if total else None,
        "classes_averaged": int(is_present.sum()),
        "pixel_accuracy": float(right.sum() / total) if total else None,
        "mean_accuracy": float(recall[in_truth].mean()) if total else None,
        "iou": {
            name: float(value) if there else None for name, value, there in zip(names, iou, is_present, strict=True)
        },
    }


def class_scores(confusion: Integer[np.ndarray, "c c"], names: Sequence[str]) -> dict:
    """Turn a confusion matrix (row = truth, column = prediction) into further scores of the classes, as fractions of 1.

    Args:
      confusion: (C, C) pixel counts.
      names: names of the C classes.

    Returns:
      A dict of
      precision, recall, f1, dice: {name: score, or None where it would be 0 / 0}. The precision of a class needs a predicted
        pixel, the recall a labeled one, and F1 = Dice = 2 · right / (predicted + labeled) one of them. F1 and Dice are the same
        number, under the names of two fields;
      mean_precision, mean_recall, mean_f1, mean_dice: the means over the classes that have a score;
      frequency_weighted_iou: the mean IoU over the classes, weighted by their labeled pixels.
      Without a labeled pixel the means are None.
    """
    confusion = np.asarray(confusion, np.float64)
    right, of_truth, of_prediction = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    total = confusion.sum()
    parts = {
        "precision": (right, of_prediction),
        "recall": (right, of_truth),
        "f1": (2 * right, of_truth + of_prediction),
        "dice": (2 * right, of_truth + of_prediction),
    }
    result = {}
    for name, (part, whole) in parts.items():
        has_score = whole > 0
        values = np.divide(part, whole, out=np.zeros_like(right), where=has_score)
        result[name] = {n: float(v) if has else None for n, v, has in zip(names, values, has_score, strict=True)}
        result[f"mean_{name}"] = float(values[has_score].mean()) if total else None
    union = of_truth + of_prediction - right
    iou = np.divide(right, union, out=np.zeros_like(right), where=union > 0)
    return result | {"frequency_weighted_iou": float((of_truth * iou).sum() / total) if total else None}


def best_constant_miou(confusion: Integer[np.ndarray, "c c"]) -> float:
    """Return the mIoU of the best prediction that gives every pixel of every image the same class.

    A model that uses the image at all must beat it.

    Args:
      confusion: (C, C) pixel counts; only the row sums matter.
    """
    of_truth = np.asarray(confusion, np.float64).sum(1)
    return float((of_truth / of_truth.sum()).max() / (of_truth > 0).sum())
