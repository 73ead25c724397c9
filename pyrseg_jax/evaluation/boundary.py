"""Find the pixels near a semantic boundary (Table 2b)."""

import cv2
import numpy as np
from jaxtyping import Bool, UInt

from pyrseg_jax.conventions import void_of

BOUNDARY_PX = 8  # Sec. 4.1


def near_boundary(labels: UInt[np.ndarray, "h w"], distance_px: int = BOUNDARY_PX) -> Bool[np.ndarray, "h w"]:
    """Return a mask of the pixels within `distance_px` (Chebyshev distance) of a semantic boundary.

    Args:
      labels: train ids (H, W); `conventions.void_of` their type is void.
      distance_px: the distance, in pixels of the label map.

    Source: Sec. 4.1, "within an eight-pixel range" (Table 2b).
    Chosen: a boundary pixel is a labeled pixel next to a pixel with another class (left, right, above, or below). Void pixels do
      not form boundaries.
    """
    is_boundary = np.zeros(labels.shape, np.uint8)
    is_labeled = labels != void_of(labels.dtype)
    for axis in (0, 1):
        first, second = (slice(None, -1), slice(1, None))
        a, b = (
            ((first, slice(None)), (second, slice(None)))
            if axis == 0
            else ((slice(None), first), (slice(None), second))
        )
        differs = (labels[a] != labels[b]) & is_labeled[a] & is_labeled[b]
        is_boundary[a] |= differs
        is_boundary[b] |= differs
    side = 2 * distance_px + 1
    return cv2.dilate(is_boundary, np.ones((side, side), np.uint8)).astype(bool)
