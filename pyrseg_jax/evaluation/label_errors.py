"""Find labels that look wrong: regions where the network is sure of another class than the label map."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt

MOST_DOUBT = 8.0  # nats; a single pixel that the network finds impossible does not outweigh a region
MOST_REGIONS = 20  # of one image
WINDOW_SHARES = (48, 16)  # evidence is averaged over squares with these parts of the shorter side, and over the image
USUAL = 0.9  # the share of the images of a split whose evidence counts as usual


class Region(NamedTuple):
    """A connected region with one label, of which the network says that it shows another class.

    score: its evidence as a multiple of what is usual in the split; see `score_images`.
    label, predicted: train ids.
    num_pixels: its area.
    box: left, top, width, height in pixels.
    doubt: mean doubt of its pixels, in nats.
    confidence: mean confidence of the prediction.
    evidence: the largest mean evidence of a square of each size around one of its pixels.
    """

    score: float
    label: int
    predicted: int
    num_pixels: int
    box: tuple[int, int, int, int]
    doubt: float
    confidence: float
    evidence: tuple[float, ...]


class Evidence(NamedTuple):
    """The evidence against the labels of one image.

    scales: its largest mean over squares of each size, then the mean over the image.
    regions: with score 0 as yet.
    """

    scales: tuple[float, ...]
    regions: tuple[Region, ...]


def pair_counts(
    truth: UInt[np.ndarray, "h w"], predicted: UInt[np.ndarray, "h w"], num_classes: int
) -> Int64[np.ndarray, "c c"]:
    """Return the confusion matrix of one image: row = label, column = prediction."""
    is_labeled = truth < num_classes
    pairs = truth[is_labeled].astype(np.int64) * num_classes + predicted[is_labeled]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def surprise_of(counts: Int64[np.ndarray, "c c"]) -> Float32[np.ndarray, "c c"]:
    """Return how surprising each pair of label and prediction is, in nats: -log of the share of the label that is predicted so.

    A network that often takes poles for sky says little about a pole that it takes for sky.

    Args:
      counts: the sum of `pair_counts` over many images. A pair that never occurred counts as one pixel.
    """
    return -np.log((counts + 1) / (counts.sum(1, keepdims=True) + len(counts))).astype(np.float32)


def find_evidence(
    truth: UInt[np.ndarray, "h w"],
    predicted: UInt[np.ndarray, "h w"],
    doubt: Float32[np.ndarray, "h w"],
    confidence: Float32[np.ndarray, "h w"],
    surprise: Float32[np.ndarray, "c c"],
) -> Evidence:
    """Collect the evidence against the labels of one image.

    The evidence of a pixel is its doubt, at most `MOST_DOUBT`, times the surprise of its pair of label and prediction. Along the
    edges of objects, both often differ by some pixels, and neither is wrong; there the network is unsure, and the strip is thin. So
    the evidence is averaged over squares of two sizes, and over the image.

    Args:
      truth: train ids of the label map; those from C on are void.
      predicted: train ids of the prediction.
      doubt: log p(predicted) - log p(label), of `uncertainty.maps_of_batch`; 0 at void.
      confidence: p(predicted).
      surprise: of `surprise_of`.

    Chosen: the ratio of both probabilities instead of the label's probability alone, which is also low where nothing is sure; and
      the surprise. Both follow the idea of confident learning (Northcutt et al. 2021): a label is an error where another class is
      likely by the standard of what this network usually says of such labels.
    """
    num_classes = len(surprise)
    differs = (truth != predicted) & (truth < num_classes)
    weight = surprise[np.where(differs, truth, 0), np.where(differs, predicted, 0)]
    evidence = np.where(differs, np.minimum(doubt, MOST_DOUBT) * weight, 0).astype(np.float32)
    sides = [max(3, min(truth.shape) // share | 1) for share in WINDOW_SHARES]
    means = [cv2.boxFilter(evidence, -1, (side, side), borderType=cv2.BORDER_REFLECT) for side in sides]
    scales = (*(float(mean.max()) for mean in means), float(evidence.mean()))
    return Evidence(scales, tuple(_regions(truth, predicted, differs, means, doubt, confidence, num_classes)))


def _regions(
    truth: np.ndarray,
    predicted: np.ndarray,
    differs: Bool[np.ndarray, "h w"],
    means: Sequence[np.ndarray],
    doubt: np.ndarray,
    confidence: np.ndarray,
    num_classes: int,
) -> list[Region]:
    pairs = np.where(differs, truth.astype(np.int64) * num_classes + predicted, -1)
    found = []
    for pair in np.unique(pairs[differs]):
        count, components, stats, _ = cv2.connectedComponentsWithStats((pairs == pair).astype(np.uint8), connectivity=8)
        inside = components > 0
        index = components[inside]
        largest = np.zeros((len(means), count), np.float32)
        for row, mean in zip(largest, means, strict=True):
            np.maximum.at(row, index, mean[inside])
        sizes = np.maximum(np.bincount(index, minlength=count), 1)
        doubts, sure = (np.bincount(index, values[inside], count) / sizes for values in (doubt, confidence))
        label, other = divmod(int(pair), num_classes)
        for i in range(1, count):
            left, top, width, height = (int(value) for value in stats[i, :4])
            box, evidence = (left, top, width, height), tuple(map(float, largest[:, i]))
            found.append(Region(0.0, label, other, int(sizes[i]), box, float(doubts[i]), float(sure[i]), evidence))
    return sorted(found, key=lambda region: -sum(region.evidence))[:MOST_REGIONS]


def score_images(found: Sequence[Evidence]) -> list[tuple[float, tuple[Region, ...]]]:
    """Return the score of each image of a split, and its regions with their scores, the worst first.

    What is usual differs from network to network and from scale to scale. So the evidence of each scale is divided by the value
    that 90 % of the images of the split do not exceed. The largest of these ratios is the score; for a region, that of the squares.
    """
    if not found:
        return []
    usual = np.quantile([evidence.scales for evidence in found], USUAL, axis=0, method="higher")
    usual = np.where(usual > 0, usual, 1.0)

    def score(values: Sequence[float]) -> float:
        return max((value / most for value, most in zip(values, usual, strict=False)), default=math.nan)

    scored = []
    for evidence in found:
        regions = [region._replace(score=float(score(region.evidence))) for region in evidence.regions]
        scored.append((float(score(evidence.scales)), tuple(sorted(regions, key=lambda region: -region.score))))
    return scored
