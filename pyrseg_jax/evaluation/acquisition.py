"""Choose unlabeled images to label next: the network is unsure of them, and they differ from each other."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt

CELLS = 4  # rows and columns of the grid on which two predictions are compared


def signature_of(labels: UInt[np.ndarray, "h w"], num_classes: int) -> Float32[np.ndarray, "d"]:
    """Return a vector that describes where an image shows which classes.

    It holds the square roots of the shares of the C classes in each of 4 × 4 parts of the image. The product of two such vectors is
    1 for equal shares and 0 where no part has a class in common: the mean Bhattacharyya coefficient of the parts.

    Args:
      labels: train ids of the prediction; void does not count.
      num_classes: C.
    """
    found = np.zeros((CELLS, CELLS, num_classes), np.float32)
    height, width = labels.shape
    for i, j in np.ndindex(CELLS, CELLS):
        rows, columns = (
            slice(n * side // CELLS, max((n + 1) * side // CELLS, 1)) for n, side in ((i, height), (j, width))
        )
        part = labels[rows, columns]
        counts = np.bincount(part[part < num_classes], minlength=num_classes)[:num_classes]
        found[i, j] = np.sqrt(counts / max(counts.sum(), 1))
    return found.ravel() / CELLS


def choose_diverse(
    scores: Sequence[float], signatures: Sequence[Float32[np.ndarray, "d"]], num_chosen: int
) -> list[int]:
    """Order all images: first come unsure ones that differ from each other, then the others by their scores.

    One after another, the image is taken with the largest score · (1 - similarity to the most similar one taken before). So of two
    frames of one video, the second one waits, however unsure the network is of both.

    Args:
      scores: how unsure the network is of each image, at least 0.
      signatures: of each image, see `signature_of`.
      num_chosen: how many images are chosen in this way.
    """
    left = np.asarray(scores, np.float64).copy()
    vectors, nearest = np.stack(signatures), np.zeros(len(left))
    is_left, chosen = np.ones(len(left), bool), []
    for _ in range(min(num_chosen, len(left))):
        value = np.where(is_left, left * (1 - nearest), -1)
        best = int(value.argmax())
        chosen.append(best)
        is_left[best] = False
        nearest = np.maximum(nearest, np.clip(vectors @ vectors[best], 0, 1))
    others = sorted(np.flatnonzero(is_left).tolist(), key=lambda i: -left[i])
    return [*chosen, *others]
