"""Resample images, label maps and probabilities on the host, with half-pixel centers throughout.

This is the only file on the host side that resamples. With half-pixel centers, the center of pixel i lies at i + 0.5, so
images, label maps and predictions of any two sizes line up. Sizes are always (height, width).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Real, UInt

from pyrseg_jax.conventions import label_dtype


def resize_image(image: Real[np.ndarray, "h w c"], size: tuple[int, int]) -> Real[np.ndarray, "h2 w2 c"]:
    """Resample an image to (height, width).

    A smaller result averages over the area of each new pixel, so that nothing aliases; a larger one is bilinear. An image that
    already has the size is returned as it is, not copied.
    """
    if image.shape[:2] == tuple(size):
        return image
    is_shrunk = size[0] * size[1] < image.shape[0] * image.shape[1]
    if not is_shrunk:
        return with_channels(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR))
    # OpenCV averages over areas for up to four channels at once.
    parts = [np.ascontiguousarray(image[..., i : i + 4]) for i in range(0, image.shape[-1], 4)]
    shrunk = [with_channels(cv2.resize(part, size[::-1], interpolation=cv2.INTER_AREA)) for part in parts]
    return shrunk[0] if len(shrunk) == 1 else np.concatenate(shrunk, axis=-1)


def with_channels(image: np.ndarray) -> Real[np.ndarray, "h w c"]:
    """Return an image with its last axis, which OpenCV drops where there is a single channel."""
    return image[..., None] if image.ndim == 2 else image


def resize_labels(labels: UInt[np.ndarray, "h w"], size: tuple[int, int]) -> UInt[np.ndarray, "h2 w2"]:
    """Resample a label map to (height, width): each new pixel takes the label at its center."""
    rows, columns = ((2 * np.arange(to) + 1) * fro // (2 * to) for to, fro in zip(size, labels.shape, strict=True))
    return labels[rows[:, None], columns]


def resize_pair_into(
    image: Real[np.ndarray, "h w c"],
    labels: UInt[np.ndarray, "h w"],
    image_out: Real[np.ndarray, "h2 w2 c"],
    labels_out: UInt[np.ndarray, "h2 w2"],
) -> None:
    """Resample an image (bilinear) and its label map (nearest) into given arrays, which may be parts of larger ones.

    Data workers call this once per training image. Writing in place saves a copy of each crop.
    """
    height, width = labels_out.shape
    # INTER_NEAREST_EXACT has the same half-pixel centers as INTER_LINEAR; plain INTER_NEAREST is off by half a pixel.
    cv2.resize(image, (width, height), image_out, interpolation=cv2.INTER_LINEAR)
    cv2.resize(labels, (width, height), labels_out, interpolation=cv2.INTER_NEAREST_EXACT)


def upsample_max(probs: Float[np.ndarray, "h w c"], size: tuple[int, int]) -> Float[np.ndarray, "h2 w2"]:
    """Interpolate class probabilities bilinearly to (height, width) and return the largest of each pixel."""
    best = np.zeros(size, np.float32)
    for i in range(probs.shape[-1]):  # one class at a time, as in `upsample_argmax`
        share = cv2.resize(np.ascontiguousarray(probs[..., i], np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        np.maximum(best, share, out=best)
    return best


def upsample_scaled(
    probs: Float[np.ndarray, "h w c"], level: np.ndarray, temperatures: Sequence[float], size: tuple[int, int]
) -> tuple[Float[np.ndarray, "h2 w2"], Float[np.ndarray, "h2 w2"]]:
    """Interpolate class probabilities bilinearly to (height, width), scale them, and return confidence and entropy of each pixel.

    The same as `evaluation.uncertainty.maps_of_batch`, without a tensor of all classes at all pixels.

    Args:
      probs: (h, w, C) fused probabilities.
      level: (h, w) the level that decides each position; a pixel has the level of the position in which its center lies.
      temperatures: T of each level.
      size: height and width of the result.
    """
    return upsample_powers(probs, 1 / np.asarray(temperatures, np.float32)[level], size)


def upsample_powers(
    probs: Float[np.ndarray, "h w c"], powers: Float[np.ndarray, "h w"], size: tuple[int, int]
) -> tuple[Float[np.ndarray, "h2 w2"], Float[np.ndarray, "h2 w2"]]:
    """Interpolate class probabilities as `upsample_scaled` does, from the power 1 / T of each position."""
    rows, columns = ((2 * np.arange(to) + 1) * fro // (2 * to) for to, fro in zip(size, powers.shape, strict=True))
    power = np.asarray(powers, np.float32)[rows[:, None], columns]
    total, best, mean = np.zeros(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.float32)
    smallest = np.finfo(np.float32).tiny
    for i in range(probs.shape[-1]):  # one class at a time, as in `upsample_argmax`
        share = cv2.resize(np.ascontiguousarray(probs[..., i], np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        log = power * np.log(np.maximum(share, smallest))
        scaled = np.exp(log)
        np.maximum(best, scaled, out=best)
        total += scaled
        mean += scaled * log
    return best / total, np.clip((np.log(total) - mean / total) / np.log(max(probs.shape[-1], 2)), 0, 1)


def upsample_argmax(probs: Float[np.ndarray, "h w c"], size: tuple[int, int]) -> UInt[np.ndarray, "h2 w2"]:
    """Interpolate class probabilities bilinearly to (height, width) and return the most likely class of each pixel.

    Of equally likely classes, the first one wins.
    """
    best, labels = np.full(size, -np.inf, np.float32), np.zeros(size, label_dtype(probs.shape[-1]))
    for i in range(probs.shape[-1]):  # one class at a time: all 150 at once would take gigabytes
        share = cv2.resize(np.ascontiguousarray(probs[..., i], np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        is_better = share > best
        best[is_better], labels[is_better] = share[is_better], i
    return labels
