"""Random erasing: cover a rectangle of the image.

Source: Zhong et al., "Random Erasing Data Augmentation" (AAAI 2020), Algorithm 1: a share of the area and an aspect ratio are
drawn, and then a place. Chosen: the rectangle is filled with the color of the padding instead of random values, its aspect ratio
is log-uniform, so that lying and standing rectangles are equally common, and a side longer than the image is cut instead of drawn
again.
"""

import dataclasses
import math

import numpy as np

from pyrseg_jax.conventions import void_of
from pyrseg_jax.data.augmentation.geometry import padding_of
from pyrseg_jax.data.decode import Pair

SMALLEST_SHARE = 0.02  # of the area, and the limit of the aspect ratio: Zhong et al., Sec. 4.2
LARGEST_ASPECT = 1 / 0.3
LABELS = {
    "void": "the erased pixels have no ground truth, so nothing is learned from them",
    "kept": "the network learns to complete what it cannot see",
}


@dataclasses.dataclass(frozen=True)
class Erasing:
    """Cover a random rectangle with the color of the padding.

    Attributes:
      probability: share of the images that lose a rectangle.
      share: largest share of the image's area; uniform from 0.02, or from 0 if it is smaller than that.
      labels: what becomes of the labels there; a name in `LABELS`.
    """

    probability: float
    share: float = 0.2
    labels: str = "void"

    def __call__(self, pair: Pair, generator: np.random.Generator) -> Pair:
        """Erase a rectangle of a pair, at a place that is uniform over the image."""
        if generator.random() >= self.probability:
            return pair
        height, width = pair.label.shape
        smallest = SMALLEST_SHARE if self.share > SMALLEST_SHARE else 0.0
        area = generator.uniform(smallest, self.share) * height * width
        limit = math.log(LARGEST_ASPECT)
        aspect = math.exp(generator.uniform(-limit, limit))
        sides = min(round(math.sqrt(area * aspect)), height), min(round(math.sqrt(area / aspect)), width)
        top, left = (int(generator.integers(whole - side + 1)) for whole, side in zip((height, width), sides))
        inside = slice(top, top + sides[0]), slice(left, left + sides[1])
        image, label = pair.image.copy(), pair.label.copy()
        image[inside] = padding_of(image)
        if self.labels == "void":
            label[inside] = void_of(label.dtype)
        return Pair(image, label)
