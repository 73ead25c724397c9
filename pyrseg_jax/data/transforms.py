"""Augment images on the host, always together with their label maps."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import UInt8

from pyrseg_jax.conventions import IMAGE_MEAN, VOID
from pyrseg_jax.data.decode import Pair
from pyrseg_jax.data.resample import resize_pair_into

# Color of the padding outside a photograph: about 0 after normalization.
PADDING_COLOR = tuple(round(value) for value in IMAGE_MEAN)
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, flip and color. All randomness comes from the generator that the caller passes.

    Attributes:
      crop_px: height and width of the result, in pixels.
      scale_min, scale_max: range of the random factor by which the image is scaled before the crop, uniform.
      is_flipped: mirror left and right with probability one half.
      color_jitter: brightness, contrast and saturation are each multiplied by a factor drawn from 1 ± this.
    """

    crop_px: int
    scale_min: float = 1.0
    scale_max: float = 1.0
    is_flipped: bool = False
    color_jitter: float = 0.0

    def __call__(self, pair: Pair, generator: np.random.Generator) -> Pair:
        """Return a (crop_px, crop_px) pair. If the scaled image is smaller, the rest of the crop is void.

        Chosen: the crop is a window of whole pixels of the image, resized once. That takes a third of the time of a warp, and only
        the pixels of the crop are computed. The scale is rounded accordingly, by at most half a pixel of the window.
        """
        scale = generator.uniform(self.scale_min, self.scale_max)
        is_mirrored = self.is_flipped and generator.random() < 0.5
        sides = [self._draw_window(side, scale, generator) for side in pair.label.shape]
        (rows, height, top), (columns, width, left) = sides
        window = Pair(pair.image[rows, columns], pair.label[rows, columns])
        is_enlarged = window.label.size < height * width
        if is_mirrored and is_enlarged:  # mirror before or after resizing, whichever moves fewer pixels
            window = _mirror(window)
        image = np.empty((self.crop_px, self.crop_px, 3), np.uint8)
        label = np.empty((self.crop_px, self.crop_px), np.uint8)
        inside = slice(top, top + height), slice(left, left + width)
        resize_pair_into(window.image, window.label, image[inside], label[inside])
        if is_mirrored and not is_enlarged:
            image[inside], label[inside] = _mirror(Pair(image[inside], label[inside]))
        above_below = ((slice(0, top),), (slice(top + height, None),))
        beside = ((inside[0], slice(0, left)), (inside[0], slice(left + width, None)))
        for around in above_below + beside:
            image[around], label[around] = PADDING_COLOR, VOID
        if self.color_jitter:
            image = jitter_color(image, *generator.uniform(1 - self.color_jitter, 1 + self.color_jitter, 3))
        return Pair(image, label)

    def _draw_window(self, side: int, scale: float, generator: np.random.Generator) -> tuple[slice, int, int]:
        """Draw one axis of the crop: the window of the image, its size in the crop, and where it starts there."""
        window = max(round(self.crop_px / scale), 1)
        if window <= side:
            start = int(generator.integers(side - window + 1))
            return slice(start, start + window), self.crop_px, 0
        # The scaled image is smaller than the crop, and lies anywhere inside it.
        size = min(max(round(side * scale), 1), self.crop_px)
        return slice(0, side), size, int(generator.integers(self.crop_px - size + 1))


def _mirror(pair: Pair) -> Pair:
    return Pair(cv2.flip(pair.image, 1), cv2.flip(pair.label, 1))


def jitter_color(
    image: UInt8[np.ndarray, "h w 3"], brightness: float, contrast: float, saturation: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Multiply saturation (about gray), contrast (about the image's mean) and brightness by factors; 1 changes nothing.

    Together they are one affine map of RGB, applied in one pass.
    """
    to_gray = np.tile(LUMA, (3, 1))
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * to_gray)
    mean = LUMA @ cv2.mean(image)[:3]
    shift = brightness * (1 - contrast) * mean
    return cv2.transform(image, np.column_stack([matrix, np.full(3, shift)]))
