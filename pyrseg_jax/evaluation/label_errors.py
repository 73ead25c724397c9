"""Find labels that look wrong: regions where the network is sure that the label map has the wrong class."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt

from pyrseg_jax.evaluation.label_shift import shift_of

MOST_DOUBT = 8.0  # nats; a single pixel that the network finds impossible does not outweigh a region
MOST_REGIONS = 20  # of one image
BLUR_SHARE = 1 / 85  # σ of the blur that averages evidence, as a share of the shorter side: 3 pixels of 256
NEAR_SHARE = 1 / 32  # so near to the same class in the label map, evidence counts less: 8 pixels of 256
USUAL = (0.5, 0.9)  # quantiles of a signal over the images of a split: the second one gets the score 1, the first one 0
FLOOR = 0.25  # of what is usual for all classes; added to what is usual for one, which may be 0 for a rare class


class Region(NamedTuple):
    """A connected region with one label, where the network sees one other class.

    score: its evidence, compared with what is usual in the split; see `score_images`.
    label, predicted: train ids.
    num_pixels: its area.
    box: left, top, width, height in pixels.
    doubt: mean doubt of its pixels, in nats.
    confidence: mean confidence of the prediction.
    evidence: the largest value of the first map of evidence at one of its pixels, and the sum of the second one; see
      `find_evidence`.
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
    """The evidence against the labels of one image; see `find_evidence`.

    unlabeled: (C,) by predicted class, the largest value of the first map.
    signals: the largest value of the second map, the mean evidence of the image, and `label_shift.shift_of`.
    regions: with score 0 as yet.
    """

    unlabeled: Float32[np.ndarray, " c"]
    signals: tuple[float, ...]
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
    edges of objects, label and prediction often differ by some pixels, and neither is wrong. Two maps of evidence make such strips
    count less than real mistakes:

      the evidence where the predicted class is not near in the label map, blurred. It finds objects that were not labeled.
      for each object of the label map, √(its share of the image) · its mean evidence · (1 - the share that is predicted so)². It
        finds objects with a wrong class. An object is a connected region of one class.

    Args:
      truth: train ids of the label map; those from C on are void.
      predicted: train ids of the prediction.
      doubt: log p(predicted) - log p(label), of `uncertainty.maps_of_batch`; 0 at void.
      confidence: p(predicted).
      surprise: of `surprise_of`.

    Chosen: the ratio of both probabilities instead of the label's probability alone, which is also low where nothing is sure; and
      the surprise. Both follow the idea of confident learning (Northcutt et al. 2021): a label is an error where another class is
      likely by the standard of what this network usually says of such labels. Both maps, and the shift, were chosen on
      rendered scenes that belong to neither split of `scenes`.
    """
    num_classes = len(surprise)
    differs = (truth != predicted) & (truth < num_classes)
    weight = surprise[np.where(differs, truth, 0), np.where(differs, predicted, 0)]
    evidence = np.where(differs, np.minimum(doubt, MOST_DOUBT) * weight, 0).astype(np.float32)
    far = _far_evidence(truth, predicted, evidence, differs)
    parts, worst_object = _object_evidence(truth, evidence, differs)
    unlabeled = np.zeros(num_classes, np.float32)
    np.maximum.at(unlabeled, predicted[differs], far[differs])
    signals = worst_object, float(evidence.mean()), shift_of(truth, predicted, num_classes)
    regions = _regions(truth, predicted, differs, far, parts, doubt, confidence, num_classes)
    return Evidence(unlabeled, signals, tuple(regions))


def _far_evidence(
    truth: np.ndarray, predicted: np.ndarray, evidence: Float32[np.ndarray, "h w"], differs: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """Return the evidence, blurred; it counts less the nearer the label map has the predicted class."""
    near = NEAR_SHARE * min(truth.shape)
    factor = np.ones(truth.shape, np.float32)
    for train_id in np.unique(predicted[differs]):
        is_other = truth != train_id
        if is_other.all():
            continue
        here = differs & (predicted == train_id)
        distance = cv2.distanceTransform(is_other.astype(np.uint8), cv2.DIST_L2, 3)
        factor[here] = np.minimum(distance[here] / near, 1)
    sigma = max(BLUR_SHARE * min(truth.shape), 0.5)
    return np.where(differs, cv2.GaussianBlur(evidence * factor, (0, 0), sigma), 0)


def _object_evidence(
    truth: np.ndarray, evidence: Float32[np.ndarray, "h w"], differs: Bool[np.ndarray, "h w"]
) -> tuple[Float32[np.ndarray, "h w"], float]:
    """Return the second map of `find_evidence`, and its largest value.

    The map spreads the value of each object over its pixels by their evidence, so that its sum over a region is the part that the
    region has in it. Otherwise, each of ten regions in one wrong object would score as the object does.
    """
    found, largest = np.zeros(truth.shape, np.float32), 0.0
    for train_id in np.unique(truth[differs]):
        num, objects = cv2.connectedComponents((truth == train_id).astype(np.uint8), connectivity=8)
        inside = objects.ravel()
        area = np.maximum(np.bincount(inside, minlength=num), 1)
        wrong = np.bincount(inside[differs.ravel()], minlength=num) / area
        factors = wrong**2 / np.sqrt(area * truth.size)
        values = np.bincount(inside, evidence.ravel(), num) * factors
        largest = max(largest, float(values[1:].max()))
        here = differs & (truth == train_id)
        found[here] = evidence[here] * factors[objects[here]]
    return found, largest


def _regions(
    truth: np.ndarray,
    predicted: np.ndarray,
    differs: Bool[np.ndarray, "h w"],
    far: np.ndarray,
    parts: np.ndarray,
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
        largest = np.zeros(count, np.float32)
        np.maximum.at(largest, index, far[inside])
        sizes = np.maximum(np.bincount(index, minlength=count), 1)
        doubts, sure, part = (np.bincount(index, values[inside], count) for values in (doubt, confidence, parts))
        label, other = divmod(int(pair), num_classes)
        for i in range(1, count):
            left, top, width, height = (int(value) for value in stats[i, :4])
            box, area, evidence = (left, top, width, height), int(sizes[i]), (float(largest[i]), float(part[i]))
            found.append(Region(0.0, label, other, area, box, float(doubts[i] / area), float(sure[i] / area), evidence))
    return sorted(found, key=lambda region: -sum(region.evidence))[:MOST_REGIONS]


def score_images(found: Sequence[Evidence]) -> list[tuple[float, tuple[Region, ...]]]:
    """Return the score of each image of a split, and its regions with their scores, the worst first.

    What is usual differs from network to network, from class to class, and from signal to signal. So the evidence for objects
    without a label is divided by the value that 90 % of the images do not exceed for this predicted class. Then each signal is
    compared with its median over the images, and with the value that 90 % of them do not exceed: the score is
    (signal - median) / (that value - median). Damaged label maps hardly change these values while they are few. The largest score
    of a signal is that of the image; for a region, only both maps of evidence count.
    """
    if not found:
        return []
    unlabeled = np.stack([evidence.unlabeled for evidence in found])
    usual = _quantile(unlabeled, USUAL[1]) + FLOOR * _quantile(unlabeled.max(1), USUAL[1])
    usual = np.where(usual > 0, usual, 1.0)
    signals = [(float((evidence.unlabeled / usual).max()), *evidence.signals) for evidence in found]
    median, most = (_quantile(signals, share) for share in USUAL)
    spread = np.where(most > median, most - median, 1.0)

    def score(values: Sequence[float]) -> float:
        parts = zip(values, median, spread, strict=False)
        return float(max(((value - middle) / width for value, middle, width in parts), default=math.nan))

    def score_region(region: Region) -> Region:
        far, *rest = region.evidence
        return region._replace(score=score((float(far / usual[region.predicted]), *rest)))

    scored = []
    for evidence, values in zip(found, signals, strict=True):
        regions = sorted(map(score_region, evidence.regions), key=lambda region: -region.score)
        scored.append((score(values), tuple(regions)))
    return scored


def _quantile(values, share: float) -> np.ndarray:
    return np.asarray(np.quantile(values, share, axis=0, method="higher"))
