"""Class weights from the counts of a data set report. NumPy only."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from pyrseg_jax.data.report import DatasetReport

Counts = Int64[np.ndarray, "c"]
Weights = Float64[np.ndarray, "c"]


def inverse_frequency(pixels: Counts) -> Weights:
    """Return weights proportional to 1 / f, where f is the share of a class among the labeled pixels; see `normalized`.

    Args:
      pixels: (C,) labeled pixels of each class.
    """
    return normalized(1 / np.maximum(pixels, 1), pixels)


def effective_number(images: Counts, pixels: Counts, beta: float = 0.999) -> Weights:
    """Return weights proportional to (1 - β) / (1 - β^n), where n is the number of images that show a class; see `normalized`.

    Args:
      images: (C,) images that show each class.
      pixels: (C,) labeled pixels of each class.
      beta: β, 0 … 1. With 0, all classes weigh the same; toward 1, the weights approach 1 / n.

    Source: Cui et al. 2019, Eq. (2).
    Chosen: images as samples. The pixels of a class are so many that β^n would be 0 for all, and neighbors among them are hardly
      new samples, which is the redundancy that this formula is about.
    """
    seen = np.maximum(images, 1).astype(np.float64)
    if beta == 1:
        return normalized(1 / seen, pixels)
    with np.errstate(divide="ignore"):  # log 0 is -∞, and β^n is 0
        effective = -np.expm1(seen * np.log(beta)) / (1 - beta)
    return normalized(1 / effective, pixels)


def inverse_log(pixels: Counts) -> Weights:
    """Return weights proportional to 1 / log(1.1 + f), where f is the share of a class among the labeled pixels; see `normalized`.

    Args:
      pixels: (C,) labeled pixels of each class.

    Source: Paszke et al. 2016 (ENet), section 5.2.
    Chosen: 1.1 where ENet has 1.02, so that the rarest class weighs at most 10 times, and usually 3 to 4 times, as much as the
      most common one, instead of up to 35 times.
    """
    shares = pixels / max(pixels.sum(), 1)
    return normalized(1 / np.log(1.1 + shares), pixels)


def normalized(weights: Weights, pixels: Counts) -> Weights:
    """Scale weights so that their mean over the labeled pixels is 1; a class without pixels gets the weight 1.

    Chosen: cross entropy divides by the sum of the weights, so that the scale is for the reader alone: above 1, a pixel counts
      more than the average one. A class that the training split lacks weighs as much as the average pixel in a validation loss.
    """
    total = pixels.sum()
    mean = (weights * pixels).sum() / total if total else 1.0
    return np.where(pixels > 0, weights / mean, 1.0)


# Name → meaning of the ways to compute weights.
CLASS_WEIGHTINGS = {
    "inverse_frequency": "1 / the share of the class among the labeled pixels of the training split",
    "inverse_log": "1 / log(1.1 + the share of the class among the labeled pixels of the training split)",
    "effective_number": "(1 - β) / (1 - β^n) for the n training images that show the class, with β = effective_beta",
}


def weights_from(report: DatasetReport, how: str, beta: float) -> tuple[float, ...]:
    """Return the weight of each class.

    Args:
      report: the report of the training split.
      how: a key of `CLASS_WEIGHTINGS`.
      beta: β of `effective_number`.
    """
    ways: dict[str, Callable[[], Weights]] = {
        "inverse_frequency": lambda: inverse_frequency(report.pixels),
        "inverse_log": lambda: inverse_log(report.pixels),
        "effective_number": lambda: effective_number(report.images, report.pixels, beta),
    }
    return tuple(map(float, ways[how]()))


def parse_weights(text: str) -> tuple[float, ...] | None:
    """Read weights that are written as numbers with commas or line breaks between them; None if these are not numbers."""
    parts: Sequence[str] = text.replace(",", " ").split()
    try:
        return tuple(map(float, parts)) or None
    except ValueError:
        return None
