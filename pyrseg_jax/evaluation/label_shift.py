"""Find label maps that are shifted against their photographs, as after a wrong crop or resize."""

import numpy as np
from jaxtyping import UInt

SHARES = (
    1 / 48,
    1 / 24,
)  # distances of the shifts that are tried, as shares of the shorter side: 5 and 11 pixels of 256
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def shift_of(truth: UInt[np.ndarray, "h w"], predicted: UInt[np.ndarray, "h w"], num_classes: int) -> float:
    """Return how much better the labels fit the prediction after a shift, from 0 to 1; 1/2 means equally well.

    With e, the share of labels that differ from the prediction, and e', the smallest such share after a shift, it is e / (e + e').
    A shift of 5 to 11 pixels of 256 makes a good label map much worse, so its value is small, however many mistakes it has.

    Args:
      truth: train ids of the label map; those from C on are void.
      predicted: train ids of the prediction.
      num_classes: C.
    """
    height, width = truth.shape
    distances = sorted({max(1, round(share * min(height, width))) for share in SHARES})
    margin = distances[-1]
    if min(height, width) <= 2 * margin:
        return 0.0
    inner = truth[margin : height - margin, margin : width - margin]
    is_labeled = inner < num_classes
    shares = [
        np.count_nonzero((_moved(predicted, down, right, margin) != inner) & is_labeled)
        for down, right in ((0, 0), *((round(d * y), round(d * x)) for d in distances for y, x in _unit()))
    ]
    own, best = shares[0], min(shares[1:])
    return own / (own + best) if own else 0.0


def _unit() -> list[tuple[float, float]]:
    return [(y / np.hypot(y, x), x / np.hypot(y, x)) for y, x in DIRECTIONS]


def _moved(values: np.ndarray, down: int, right: int, margin: int) -> np.ndarray:
    height, width = values.shape
    return values[margin + down : height - margin + down, margin + right : width - margin + right]
