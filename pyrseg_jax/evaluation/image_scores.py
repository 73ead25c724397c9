"""Scores that are averaged over images, and the counts of each image that they are computed from.

The counts also allow to compare two evaluations image by image, and to draw images at random (bootstrap).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

DIGEST_DIGITS = 16  # hexadecimal digits of a pair's SHA-256 that identify an image: 64 bits

# Of an image: digest, and per class that occurs in it: [class, pixels predicted rightly, predicted pixels, labeled pixels].
Lists = list[tuple[str, list[list[int]]]]


class ImageCounts(NamedTuple):
    """The counts of each image of a split, sorted by digest, so that they do not depend on batches and processes.

    digests: N texts that identify an image with its label map, whatever their names: the first digits of a SHA-256.
    counts: (N, C, 3) pixels of a class that are predicted rightly, that are predicted, and that are labeled; all without void.
    """

    digests: tuple[str, ...]
    counts: Int64[np.ndarray, "n c 3"]


def collect_counts(shares: Iterable[Sequence[tuple[bytes, np.ndarray]]]) -> ImageCounts:
    """Bring the (digest, counts) of the images of all processes into one order."""
    images = [(digest.hex()[:DIGEST_DIGITS], counts) for share in shares for digest, counts in share]
    # Of two equal pairs, which a network predicts equally, the counts are equal, too; otherwise they decide.
    images.sort(key=lambda image: (image[0], image[1].tolist()))
    counts = np.array([counts for _, counts in images], np.int64)
    return ImageCounts(tuple(digest for digest, _ in images), counts)


def to_lists(images: ImageCounts) -> Lists:
    """Return the counts as lists for JSON, without the classes that do not occur in an image."""
    found = []
    for digest, counts in zip(images.digests, images.counts, strict=True):
        occurring = np.flatnonzero(counts.any(-1))
        found.append((digest, np.column_stack([occurring, counts[occurring]]).tolist()))
    return found


def from_lists(lists: Lists, num_classes: int) -> ImageCounts:
    """Return the counts that `to_lists` was given.

    Raises:
      ValueError: if a class is not one of the C classes, or occurs twice in an image.
    """
    counts = np.zeros((len(lists), num_classes, 3), np.int64)
    for i, (digest, rows) in enumerate(lists):
        classes = [row[0] for row in rows]
        if len(set(classes)) < len(classes) or not set(classes) <= set(range(num_classes)):
            raise ValueError(
                f"the image {digest} has the classes {classes}: expected different ones, 0 … {num_classes - 1}"
            )
        for index, *numbers in rows:
            counts[i, index] = numbers
    return ImageCounts(tuple(digest for digest, _ in lists), counts)


def iou_of_images(counts: Int64[np.ndarray, "n c 3"]) -> Float64[np.ndarray, "n c"]:
    """Return the IoU of each class in each image; NaN where the label map of the image does not show the class."""
    right, predicted, labeled = np.moveaxis(counts.astype(np.float64), -1, 0)
    is_shown = labeled > 0
    return np.where(is_shown, right / np.where(is_shown, predicted + labeled - right, 1), np.nan)


def miou_of_images(counts: Int64[np.ndarray, "n c 3"]) -> Float64[np.ndarray, "n"]:
    """Return the mean IoU of each image over the classes of its label map; NaN where no pixel is labeled."""
    iou = iou_of_images(counts)
    is_shown = ~np.isnan(iou)
    num_shown = is_shown.sum(1)
    return np.where(num_shown > 0, np.where(is_shown, iou, 0.0).sum(1) / np.maximum(num_shown, 1), np.nan)


def image_scores(images: ImageCounts, names: Sequence[str]) -> dict:
    """Compute the scores of images, as fractions of 1.

    Args:
      images: the counts of each image.
      names: names of the C classes.

    Returns:
      A dict of
      image_miou: of each image with a labeled pixel, the mean IoU over the classes of its label map; then the mean over the images;
      class_image_miou: the mean of `image_iou` over the classes that have one;
      image_iou: {name: mean of the IoU over the images whose label maps show the class, or None if there are none}.
      Without a labeled pixel the means are None.

    Source: mIoU^I and mIoU^C of Wang et al. 2023, Sec. 3. As in their code, an image has an IoU of the classes in its ground truth
      only. A few pixels that are wrongly given another class count for the class that they hide.
    """
    iou = iou_of_images(images.counts)
    is_shown = ~np.isnan(iou)
    values = np.where(is_shown, iou, 0.0)
    per_class, of_images = is_shown.sum(0), miou_of_images(images.counts)
    of_images = of_images[~np.isnan(of_images)]
    of_classes = values.sum(0)[per_class > 0] / per_class[per_class > 0]
    found = iter(of_classes.tolist())
    return {
        "image_miou": float(of_images.mean()) if len(of_images) else None,
        "class_image_miou": float(of_classes.mean()) if len(of_classes) else None,
        "image_iou": {name: next(found) if count else None for name, count in zip(names, per_class, strict=True)},
    }
