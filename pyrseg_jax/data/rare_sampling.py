"""Show images with rare classes more often."""

import dataclasses

import numpy as np
from jaxtyping import Float64

from pyrseg_jax.data.contents import images_of_classes
from pyrseg_jax.data.report import DatasetReport


@dataclasses.dataclass(frozen=True)
class RareSampling:
    """Replaces a share of the images by ones that are drawn for a class, and rare classes are drawn more often.

    The probability of a class c is p(c) ∝ exp((1 - f_c) / T), where f_c is its share of the labeled pixels and T is the
    temperature. Then each of the images that show the class is equally likely.

    Attributes:
      share: share of the images to replace, 0 … 1; the others keep their places in the shuffled order.
      cumulative: (C,) sums of the probabilities of the classes; classes that no image shows have the probability 0.
      images: for each class, the indices of the images that show it.

    Source: Rare Class Sampling of DAFormer (Hoyer et al. 2022), with T = 0.01 and a share of 1.
    Differs: an image counts for a class from its first pixel on, and the crop is drawn as always. Their code wants 3,000 pixels of
      the class in an image, and tries several crops.
    """

    share: float
    cumulative: Float64[np.ndarray, "c"]
    images: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, report: DatasetReport, share: float, temperature: float) -> "RareSampling":
        """Build the sampling of a split.

        Args:
          report: the report of the split, with the contents of its images.
          share: share of the images to replace, 0 … 1.
          temperature: T, above 0. Toward 0, only the rarest class is drawn; with a large T, all classes are equally likely.
        """
        images = images_of_classes(report.contents, len(report.pixels))
        frequencies = report.pixels / max(report.pixels.sum(), 1)
        is_shown = np.array([len(each) > 0 for each in images])
        exponents = np.where(is_shown, (1 - frequencies) / temperature, -np.inf)
        weights = np.exp(exponents - exponents.max()) if is_shown.any() else np.zeros(len(images))
        return cls(share if is_shown.any() else 0.0, weights.cumsum() / max(weights.sum(), 1e-300), tuple(images))

    def draw(self, index: int, generator: np.random.Generator) -> int:
        """Return the index of the image to show instead of image `index`, which may be that one."""
        if generator.random() >= self.share:
            return index
        drawn = np.searchsorted(self.cumulative, generator.random(), side="right")
        images = self.images[min(int(drawn), len(self.images) - 1)]
        return int(images[generator.integers(len(images))])
