"""Find labels that look wrong: regions where the network is sure of another class than the label map."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt

MOST_DOUBT = 8.0  # nats; a single pixel that the network finds impossible does not outweigh a region
LEAST_SCORE = 0.05  # nats; below it, a region is not worth a look
MOST_REGIONS = 20  # of one image
WINDOW_SHARE = 24  # the doubt is averaged over squares of this part of the shorter side


class Region(NamedTuple):
    """A connected region with one label, of which the network is sure that it shows another class.

    score: the largest mean doubt of a square window around one of its pixels, in nats.
    label, predicted: train ids.
    num_pixels: its area.
    box: left, top, width, height in pixels.
    doubt: mean doubt of its pixels, in nats.
    confidence: mean confidence of the prediction.
    """

    score: float
    label: int
    predicted: int
    num_pixels: int
    box: tuple[int, int, int, int]
    doubt: float
    confidence: float


def pair_counts(
    truth: UInt[np.ndarray, "h w"], predicted: UInt[np.ndarray, "h w"], num_classes: int
) -> Int64[np.ndarray, "c c"]:
    """Return the confusion matrix of one image: row = label, column = prediction."""
    is_labeled = truth < num_classes
    pairs = truth[is_labeled].astype(np.int64) * num_classes + predicted[is_labeled]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def reweighted(regions: Sequence[Region], counts: Int64[np.ndarray, "c c"]) -> list[Region]:
    """Return the regions with their scores times the surprise of their pair of label and prediction, the worst first.

    The surprise is -log of the share of the label's pixels that are predicted so, in the whole split. A network that often takes
    poles for sky says little about a pole that it takes for sky.

    Args:
      regions: of an image, as `find_regions` returns them.
      counts: the sum of `pair_counts` over the split.
    """
    shares = (counts + 1) / (counts.sum(1, keepdims=True) + len(counts))  # a pair that never occurred is not impossible
    found = [
        region._replace(score=region.score * -math.log(shares[region.label, region.predicted])) for region in regions
    ]
    return sorted(found, key=lambda region: -region.score)


def score_of(regions: Sequence[Region]) -> float:
    """Return the score of an image, by which images are ranked: that of its worst region."""
    return max((region.score for region in regions), default=0.0)


def find_regions(
    truth: UInt[np.ndarray, "h w"],
    predicted: UInt[np.ndarray, "h w"],
    doubt: Float32[np.ndarray, "h w"],
    confidence: Float32[np.ndarray, "h w"],
    num_classes: int,
) -> list[Region]:
    """Find the regions of an image whose labels look wrong, the worst first.

    Along the edges of objects, label and prediction often differ by some pixels, and neither is wrong. There the network is unsure,
    and the strip is thin. So the doubt of each pixel, at most `MOST_DOUBT`, is averaged over a square window; an edge then scores
    low, and a region that is as large as the window scores its full doubt.

    Args:
      truth: train ids of the label map.
      predicted: train ids of the prediction.
      doubt: log p(predicted) - log p(label), of `uncertainty.maps_of_batch`; 0 at void.
      confidence: p(predicted).
      num_classes: C; ids from C on are void.

    Chosen: the ratio of both probabilities instead of the label's probability alone, which is also low where nothing is sure. This
      is the idea of confident learning (Northcutt et al. 2021): a label is an error where another class is likely by the standard
      of what this network is usually sure of. Here temperature scaling sets that standard.
    """
    side = max(3, min(truth.shape) // WINDOW_SHARE | 1)
    evidence = cv2.boxFilter(np.minimum(doubt, MOST_DOUBT), -1, (side, side), borderType=cv2.BORDER_REFLECT)
    differs = (truth != predicted) & (truth < num_classes)
    pairs = np.where(differs, truth.astype(np.int64) * num_classes + predicted, -1)
    found = []
    for pair in np.unique(pairs[differs & (evidence >= LEAST_SCORE)]):
        count, components, stats, _ = cv2.connectedComponentsWithStats((pairs == pair).astype(np.uint8), connectivity=8)
        inside = components > 0
        index = components[inside]
        scores = np.zeros(count, np.float32)
        np.maximum.at(scores, index, evidence[inside])
        sizes = np.bincount(index, minlength=count)
        doubts = np.bincount(index, doubt[inside], count) / np.maximum(sizes, 1)
        sure = np.bincount(index, confidence[inside], count) / np.maximum(sizes, 1)
        label, other = divmod(int(pair), num_classes)
        for i in np.flatnonzero(scores >= LEAST_SCORE):
            left, top, width, height = (int(value) for value in stats[i, :4])
            box = left, top, width, height
            found.append(Region(float(scores[i]), label, other, int(sizes[i]), box, float(doubts[i]), float(sure[i])))
    return sorted(found, key=lambda region: -region.score)[:MOST_REGIONS]
