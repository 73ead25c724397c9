"""Paste a part of one augmented image into another, labels included: CutMix and ClassMix.

Chosen: the second image is not another image of the batch but one of a second endless order of the training images, which `seed`
and the index of the image in the first order determine. So a mixed image depends on seed and step alone, whatever the number of
workers, processes and devices, and a batch of one image can be mixed, too. The second image is read and augmented only for the
images that are mixed.
"""

import dataclasses
import math

import cv2
import numpy as np

from pyrseg_jax.conventions import void_of
from pyrseg_jax.data.decode import Pair


def paste_rectangle(pair: Pair, other: Pair, rows: slice, columns: slice) -> Pair:
    """Return the pair with a rectangle of the other one in the same place."""
    image, label = pair.image.copy(), pair.label.copy()
    image[rows, columns], label[rows, columns] = other.image[rows, columns], other.label[rows, columns]
    return Pair(image, label)


def paste_classes(pair: Pair, other: Pair, classes: np.ndarray) -> Pair:
    """Return the pair with those pixels of the other one that have one of the train ids `classes`."""
    is_chosen = np.zeros(void_of(other.label.dtype) + 1, np.uint8)
    is_chosen[classes] = 1
    # OpenCV is faster, but looks up bytes only.
    mask = cv2.LUT(other.label, is_chosen) if len(is_chosen) == 256 else is_chosen[other.label]
    image, label = pair.image.copy(), pair.label.copy()
    cv2.copyTo(other.image, mask, image)
    cv2.copyTo(other.label, mask, label)
    return Pair(image, label)


def cutmix(pair: Pair, other: Pair, generator: np.random.Generator) -> Pair:
    """Paste a random rectangle that has the shape of the image.

    Source: Yun et al., "CutMix" (ICCV 2019), Eq. (2), with α = 1: the share of its area is uniform. Chosen: it lies inside the
    image as a whole, so that no area is lost at the borders.
    """
    side = math.sqrt(generator.random())
    spans = []
    for whole in pair.label.shape:
        size = round(side * whole)
        start = int(generator.integers(whole - size + 1))
        spans.append(slice(start, start + size))
    return paste_rectangle(pair, other, *spans)


def classmix(pair: Pair, other: Pair, generator: np.random.Generator) -> Pair:
    """Paste all pixels of a random half of the classes of the other image; void is never pasted.

    Source: Olsson et al., "ClassMix" (WACV 2021), Algorithm 1, with labels instead of predictions. An odd number of classes
    is rounded down, so an image with a single class is not pasted.
    """
    void = void_of(other.label.dtype)
    present = np.flatnonzero(np.bincount(other.label.ravel(), minlength=void + 1)[:void])
    return paste_classes(pair, other, generator.permutation(present)[: len(present) // 2])


MIXES = {"cutmix": cutmix, "classmix": classmix}


@dataclasses.dataclass(frozen=True)
class Mix:
    """How and how often images are mixed.

    Attributes:
      kind: a name in `MIXES`.
      probability: share of the images into which a second one is pasted.
    """

    kind: str
    probability: float = 0.5

    def is_drawn(self, generator: np.random.Generator) -> bool:
        """Draw whether an image is mixed, before the second image is read."""
        return generator.random() < self.probability

    def __call__(self, pair: Pair, other: Pair, generator: np.random.Generator) -> Pair:
        """Return the pair with a part of the other one, which has the same size."""
        return MIXES[self.kind](pair, other, generator)
