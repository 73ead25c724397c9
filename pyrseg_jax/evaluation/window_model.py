"""What a network must do to segment a large image window by window."""

from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class WindowModel(Protocol):
    """What predicts the windows of a large image.

    stride: pixels per cell of the probabilities.
    coarsest_stride: the side of a window is a multiple of it.
    has_tokens: whether the network sums up the whole image in tokens.
    is_scaled: whether the probabilities have one channel more, see `predict`.
    """

    stride: int
    coarsest_stride: int
    has_tokens: bool
    is_scaled: bool

    def predict(self, images: np.ndarray, tokens: Any) -> Any:
        """Start to predict a window.

        Args:
          images: (1, h, w, channels).
          tokens: what all windows share; {} where the window uses its own.

        Returns:
          (h / stride, w / stride, C) fused probabilities, on the device. If they are scaled, the last channel holds 1 / T of the
          level that decides the cell.
        """
        ...

    def collect(self, images: np.ndarray) -> Any:
        """Start to compute the maps of a window from which tokens are taken, a tree of `Sampled`."""
        ...
