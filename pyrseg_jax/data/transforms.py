"""Augmentation and resizing on the host, image and label always together."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from pyrseg_jax.conventions import IMAGE_MEAN, VOID
from pyrseg_jax.data.decode import Pair

# What lies outside of a photograph: after normalisation about 0.
PADDING_COLOR = tuple(round(value) for value in IMAGE_MEAN)
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, flip and colour, as functions of a random generator.

    Attributes:
      crop_px: height and width of the result.
      scale_min, scale_max: the image is enlarged by a factor drawn uniformly between these before the crop.
      is_flipped: mirror left and right with probability one half.
      color_jitter: brightness, contrast and saturation are each multiplied by a factor in 1 ± this.
    """

    crop_px: int
    scale_min: float = 1.0
    scale_max: float = 1.0
    is_flipped: bool = False
    color_jitter: float = 0.0

    def __call__(self, pair: Pair, generator: np.random.Generator) -> Pair:
        """Return a (crop_px, crop_px) pair; where the scaled image is smaller, the rest is void."""
        matrix = self._draw_geometry(*pair.label.shape, generator)
        size = (self.crop_px, self.crop_px)
        # One warp does scale, crop, padding and flip, so that only the pixels of the crop are computed, and image and
        # label cannot come apart: both follow the same matrix.
        image = cv2.warpAffine(
            pair.image, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=PADDING_COLOR
        )
        label = cv2.warpAffine(
            pair.label, matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderValue=(VOID,)
        )
        if self.color_jitter:
            image = jitter_color(image, *generator.uniform(1 - self.color_jitter, 1 + self.color_jitter, 3))
        return Pair(image, label)

    def _draw_geometry(self, height: int, width: int, generator: np.random.Generator) -> Float[np.ndarray, "2 3"]:
        """Draw the matrix that maps the crop's pixel (x, y, 1) to the image's pixel (x, y)."""
        scale = generator.uniform(self.scale_min, self.scale_max)
        rows = []
        for side, is_mirrored in ((width, self.is_flipped and generator.random() < 0.5), (height, False)):
            spare = side * scale - self.crop_px
            # Anywhere inside of the image, or, if that is smaller than the crop, the image anywhere inside of the crop.
            offset = generator.uniform(min(0, spare), max(0, spare))
            # Pixel centres are at half-integers: source + ½ = (crop + ½ + offset) / scale, with crop → crop_px - 1 - crop
            # if mirrored.
            slope, start = (-1 / scale, self.crop_px - 0.5) if is_mirrored else (1 / scale, 0.5)
            rows.append((slope, (start + offset) / scale - 0.5))
        (slope_x, at_x), (slope_y, at_y) = rows
        return np.array([[slope_x, 0, at_x], [0, slope_y, at_y]])


def jitter_color(
    image: UInt8[np.ndarray, "h w 3"], brightness: float, contrast: float, saturation: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Multiply saturation (about grey), contrast (about the image's mean) and brightness by factors; 1 changes nothing.

    The three are one affine map of RGB, applied in one pass.
    """
    to_grey = np.tile(LUMA, (3, 1))
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * to_grey)
    mean = LUMA @ cv2.mean(image)[:3]
    shift = brightness * (1 - contrast) * mean
    return cv2.transform(image, np.column_stack([matrix, np.full(3, shift)]))


def resize_image(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Resample a photograph to (height, width): by area when it shrinks, so that nothing aliases, else bilinear."""
    if image.shape[:2] == tuple(size):
        return image
    is_shrunk = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if is_shrunk else cv2.INTER_LINEAR)
