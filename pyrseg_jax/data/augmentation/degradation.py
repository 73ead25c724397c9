"""Degrade images as lenses, sensors and file formats do: blur, noise and JPEG compression. Label maps stay as they are."""

import dataclasses
import functools
import statistics

import cv2
import numpy as np
from jaxtyping import Float64, Real, UInt8

from pyrseg_jax.data.decode import Pair
from pyrseg_jax.data.resample import with_channels


def blur(image: Real[np.ndarray, "h w c"], sigma_px: float) -> Real[np.ndarray, "h w c"]:
    """Blur with a Gaussian of this standard deviation in pixels; 0 changes nothing. The image is mirrored at its borders."""
    return with_channels(cv2.GaussianBlur(image, (0, 0), sigma_px)) if sigma_px > 0 else image


def add_noise(
    image: Real[np.ndarray, "h w c"], std: float, generator: np.random.Generator
) -> Real[np.ndarray, "h w c"]:
    """Add Gaussian noise of this standard deviation in gray levels, independent for each pixel and channel; clip to 0 … 255.

    Chosen: each value is one of 256 quantiles of the normal distribution, scaled to its variance, so that a random byte chooses it.
    That takes a third of the time of `Generator.standard_normal`. The noise never exceeds 2.9 standard deviations.
    """
    rounded = np.rint(std * _quantiles()).astype(np.int16)
    codes = np.frombuffer(generator.bytes(image.size), np.uint8).reshape(image.shape)
    if image.dtype != np.uint8:
        return np.clip(image + (std * _quantiles()).astype(np.float32)[codes], 0, 255)
    return cv2.add(image, cv2.LUT(codes, rounded), dtype=cv2.CV_8U).reshape(image.shape)


@functools.cache
def _quantiles() -> Float64[np.ndarray, "256"]:
    normal = statistics.NormalDist()
    quantiles = np.array([normal.inv_cdf((i + 0.5) / 256) for i in range(256)])
    return quantiles / quantiles.std()


def compress_jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int) -> UInt8[np.ndarray, "h w 3"]:
    """Encode as JPEG of this quality (1 … 100) and decode again. The color is stored at half the resolution, as most cameras do."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was encoded a moment ago
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


@dataclasses.dataclass(frozen=True)
class Blur:
    """Gaussian blur.

    Attributes:
      probability: share of the images that are blurred.
      sigma_px: largest standard deviation, in pixels of the crop; uniform from 0.
    """

    probability: float
    sigma_px: float = 2.0

    def __call__(self, pair: Pair, generator: np.random.Generator) -> Pair:
        """Blur the image of a pair."""
        if generator.random() >= self.probability:
            return pair
        return Pair(blur(pair.image, generator.uniform(0, self.sigma_px)), pair.label)


@dataclasses.dataclass(frozen=True)
class Noise:
    """Gaussian noise.

    Attributes:
      probability: share of the images that get noise.
      std: largest standard deviation, in gray levels; uniform from 0.
    """

    probability: float
    std: float = 10.0

    def __call__(self, pair: Pair, generator: np.random.Generator) -> Pair:
        """Add noise to the image of a pair."""
        if generator.random() >= self.probability:
            return pair
        return Pair(add_noise(pair.image, generator.uniform(0, self.std), generator), pair.label)


@dataclasses.dataclass(frozen=True)
class JpegCompression:
    """JPEG compression.

    Attributes:
      probability: share of the images that are compressed.
      quality_min, quality_max: range of the quality, 1 … 100; whole numbers, uniform, both ends included.
    """

    probability: float
    quality_min: int = 40
    quality_max: int = 95

    def __call__(self, pair: Pair, generator: np.random.Generator) -> Pair:
        """Compress the image of a pair."""
        if generator.random() >= self.probability:
            return pair
        quality = int(generator.integers(self.quality_min, self.quality_max + 1))
        return Pair(compress_jpeg(pair.image, quality), pair.label)
