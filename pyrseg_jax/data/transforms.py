"""Augment images on the host, always together with their label maps."""

import dataclasses
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Real

from pyrseg_jax.conventions import void_of
from pyrseg_jax.data.augmentation.geometry import Affine, Span, padding_of, warp_pair
from pyrseg_jax.data.augmentation.mixing import Mix
from pyrseg_jax.data.augmentation.user_function import UserFunction
from pyrseg_jax.data.decode import Pair
from pyrseg_jax.data.resample import resize_pair_into, with_channels

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@runtime_checkable
class Effect(Protocol):
    """A random change of a crop, of its own size; for example `Blur`. The pair that it gets stays as it is."""

    def __call__(self, pair: Pair, generator: np.random.Generator) -> Pair: ...


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, flip, color, and more. All randomness comes from the generator that the caller passes.

    The order is: stretch, scale, mirror, shear, rotate and crop, all of them in one resampling; color; `effects`; `function`.

    Attributes:
      crop_px: height and width of the result, in pixels.
      scale_min, scale_max: range of the random factor by which the image is scaled before the crop, uniform.
      is_flipped: mirror left and right with probability one half.
      color_jitter: brightness, contrast and saturation are each multiplied by a factor drawn from 1 ± this. Only images of three
        channels have a saturation.
      affine: the rest of the geometry: stretch, shear and rotation.
      effects: further changes of the crop, applied in this order.
      function: the user's own change of the crop, applied last.
      mix: how a second image is pasted into this one. The pipeline does that, because it knows the second image.
    """

    crop_px: int
    scale_min: float = 1.0
    scale_max: float = 1.0
    is_flipped: bool = False
    color_jitter: float = 0.0
    affine: Affine = Affine()
    effects: tuple[Effect, ...] = ()
    function: UserFunction | None = None
    mix: Mix | None = None

    def __call__(self, pair: Pair, generator: np.random.Generator, name: str = "the image") -> Pair:
        """Return a (crop_px, crop_px) pair. If the scaled image is smaller, the rest of the crop is void.

        Args:
          pair: an image of any size, and its label map.
          generator: the source of all randomness.
          name: the name of the image, for messages.

        Raises:
          UserError: naming function and image, if the user's function fails or returns something that cannot be used.
        """
        pair = self._crop(pair, generator)
        if self.color_jitter:
            factors = generator.uniform(1 - self.color_jitter, 1 + self.color_jitter, 3)
            pair = Pair(jitter_color(pair.image, *factors), pair.label)
        for effect in self.effects:
            pair = effect(pair, generator)
        return pair if self.function is None else self.function(pair, generator, name)

    def _crop(self, pair: Pair, generator: np.random.Generator) -> Pair:
        """Draw the geometry, and resample once.

        A window of the image is drawn, and then its angles. A rotated window keeps its center, so that rotation does not change
        which parts of the images are seen. Its corners may leave the image, and are void there.
        """
        scale = generator.uniform(self.scale_min, self.scale_max)
        is_mirrored = self.is_flipped and generator.random() < 0.5
        stretch = self.affine.draw_stretch(generator)
        rows, columns = (
            self._draw_span(side, scale * factor, generator)
            for side, factor in zip(pair.label.shape, stretch, strict=True)
        )
        angles = self.affine.draw_angles(generator)
        if angles is not None:
            return warp_pair(pair, self.crop_px, rows, columns, is_mirrored, *angles)
        return self._resize(pair, rows, columns, is_mirrored)

    def _resize(self, pair: Pair, rows: Span, columns: Span, is_mirrored: bool) -> Pair:
        """Resize a window of the image into the crop.

        Chosen: the crop is a window of whole pixels of the image, resized once. That takes a third of the time of a warp, and only
        the pixels of the crop are computed. The scale is rounded accordingly, by at most half a pixel of the window.
        """
        (height, top), (width, left) = rows[1:], columns[1:]
        window = Pair(pair.image[rows.source, columns.source], pair.label[rows.source, columns.source])
        is_enlarged = window.label.size < height * width
        if is_mirrored and is_enlarged:  # mirror before or after resizing, whichever moves fewer pixels
            window = _mirror(window)
        padding = padding_of(pair.image)
        image = np.empty((self.crop_px, self.crop_px, len(padding)), pair.image.dtype)
        label = np.empty((self.crop_px, self.crop_px), pair.label.dtype)
        inside = slice(top, top + height), slice(left, left + width)
        resize_pair_into(window.image, window.label, image[inside], label[inside])
        if is_mirrored and not is_enlarged:
            image[inside], label[inside] = _mirror(Pair(image[inside], label[inside]))
        above_below = ((slice(0, top),), (slice(top + height, None),))
        beside = ((inside[0], slice(0, left)), (inside[0], slice(left + width, None)))
        for around in above_below + beside:
            image[around], label[around] = padding, void_of(label.dtype)
        return Pair(image, label)

    def _draw_span(self, side: int, scale: float, generator: np.random.Generator) -> Span:
        """Draw one axis of the crop: the window of the image, its size in the crop, and where it starts there."""
        window = max(round(self.crop_px / scale), 1)
        if window <= side:
            start = int(generator.integers(side - window + 1))
            return Span(slice(start, start + window), self.crop_px, 0)
        # The scaled image is smaller than the crop, and lies anywhere inside it.
        size = min(max(round(side * scale), 1), self.crop_px)
        return Span(slice(0, side), size, int(generator.integers(self.crop_px - size + 1)))


def _mirror(pair: Pair) -> Pair:
    return Pair(with_channels(cv2.flip(pair.image, 1)), cv2.flip(pair.label, 1))


def jitter_color(
    image: Real[np.ndarray, "h w c"], brightness: float, contrast: float, saturation: float
) -> Real[np.ndarray, "h w c"]:
    """Multiply saturation (about gray), contrast (about the image's mean) and brightness by factors; 1 changes nothing.

    Together they are one affine map of RGB, applied in one pass. In images of other than three channels, the contrast is about the
    mean of each channel, and there is no saturation.
    """
    if image.shape[-1] != 3:
        mean = image.mean((0, 1), dtype=np.float64)
        changed = image * np.float32(brightness * contrast) + (brightness * (1 - contrast) * mean).astype(np.float32)
        changed = np.clip(changed, 0, 255)
        return changed.astype(image.dtype) if image.dtype.kind == "f" else np.rint(changed).astype(image.dtype)
    to_gray = np.tile(LUMA, (3, 1))
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * to_gray)
    mean = LUMA @ cv2.mean(image)[:3]
    shift = brightness * (1 - contrast) * mean
    changed = cv2.transform(image, np.column_stack([matrix, np.full(3, shift)]))
    return np.clip(changed, 0, 255) if image.dtype.kind == "f" else changed  # OpenCV clips bytes by itself
