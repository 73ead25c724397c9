"""Photometric distortion: random brightness, contrast, saturation and hue, as MMSegmentation distorts its training images.

Source: SSD (Liu et al., ECCV 2016, Sec. 2.2, "photo-metric distortions"), as MMSegmentation's `PhotoMetricDistortion` applies it.
Given the same parameters, each function returns the same bits as that class. Images that are not RGB of 8 bits have no hue and no
saturation; brightness and contrast change in all channels alike.
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Real, UInt8

from pyrseg_jax.data.decode import Pair
from pyrseg_jax.data.resample import with_channels

DEGREES_PER_HUE = 2  # OpenCV stores a hue of 0 … 358° as 0 … 179


def change_levels(
    image: Real[np.ndarray, "h w c"], factor: float = 1.0, shift: float = 0.0
) -> Real[np.ndarray, "h w c"]:
    """Multiply every value (contrast about black), and add gray levels (brightness); clip to 0 … 255.

    Images of 8 bits are rounded down.
    """
    if image.dtype != np.uint8:
        return np.clip(image * np.float32(factor) + np.float32(shift), 0, 255).astype(image.dtype)
    return with_channels(cv2.LUT(image, _table(factor, shift)))


def change_saturation(image: UInt8[np.ndarray, "h w 3"], factor: float) -> UInt8[np.ndarray, "h w 3"]:
    """Multiply the saturation of HSV; 1 changes nothing."""
    return image if factor == 1 else _change_hsv(image, 1, _table(factor, 0.0))


def change_hue(image: UInt8[np.ndarray, "h w 3"], hue_deg: int) -> UInt8[np.ndarray, "h w 3"]:
    """Turn the hue of HSV by an angle in degrees, in steps of 2; 0 changes nothing."""
    steps = hue_deg // DEGREES_PER_HUE
    return image if steps == 0 else _change_hsv(image, 0, ((np.arange(256) + steps) % 180).astype(np.uint8))


def _table(factor: float, shift: float) -> UInt8[np.ndarray, "256"]:
    return np.clip(np.arange(256, dtype=np.float32) * factor + shift, 0, 255).astype(np.uint8)


def _change_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


@dataclasses.dataclass(frozen=True)
class Photometric:
    """Random brightness, contrast, saturation and hue, each with probability one half.

    Contrast comes before saturation and hue, or after them, with probability one half. All amounts are uniform. Only RGB of 8 bits
    has saturation and hue.

    Attributes:
      probability: share of the images that are distorted at all. In MMSegmentation it is 1.
      brightness: gray levels that are added, at most and at least minus this.
      contrast: all values are multiplied by a factor of 1 ± this.
      saturation: the saturation is multiplied by a factor of 1 ± this.
      hue_deg: degrees by which the hue is turned, at most and at least minus this. The steps are of 2 degrees, and as in
        MMSegmentation the largest step is left out.
    """

    probability: float = 1.0
    brightness: float = 32.0
    contrast: float = 0.5
    saturation: float = 0.5
    hue_deg: int = 36

    def __call__(self, pair: Pair, generator: np.random.Generator) -> Pair:
        """Distort the image of a pair."""
        if generator.random() >= self.probability:
            return pair
        image = pair.image
        if _is_heads(generator):
            image = change_levels(image, shift=generator.uniform(-self.brightness, self.brightness))
        is_contrast_first = _is_heads(generator)
        if is_contrast_first:
            image = self._change_contrast(image, generator)
        has_hue = image.dtype == np.uint8 and image.shape[-1] == 3
        if _is_heads(generator) and has_hue:
            image = change_saturation(image, generator.uniform(1 - self.saturation, 1 + self.saturation))
        most = self.hue_deg // DEGREES_PER_HUE
        if _is_heads(generator) and most and has_hue:
            image = change_hue(image, DEGREES_PER_HUE * int(generator.integers(-most, most)))
        if not is_contrast_first:
            image = self._change_contrast(image, generator)
        return Pair(image, pair.label)

    def _change_contrast(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if not _is_heads(generator):
            return image
        return change_levels(image, factor=generator.uniform(1 - self.contrast, 1 + self.contrast))


def _is_heads(generator: np.random.Generator) -> bool:
    return generator.random() < 0.5
