"""Stretch, rotate and shear images and their label maps, in one warp together with the scale and the crop."""

import dataclasses
import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Real

from pyrseg_jax.conventions import IMAGE_MEAN, image_mean, void_of
from pyrseg_jax.data.decode import Pair

# Color of the padding outside a photograph: about 0 after normalization.
PADDING_COLOR = tuple(round(value) for value in IMAGE_MEAN)
MAX_WARPED = 4  # channels that OpenCV warps at once


def padding_of(image: Real[np.ndarray, "h w c"]) -> tuple[float, ...]:
    """Return the color of the padding outside an image: whole numbers for bytes, and exactly 0 after normalization for floats."""
    mean = image_mean(image.shape[-1])
    return mean if image.dtype.kind == "f" else tuple(round(value) for value in mean)


class Span(NamedTuple):
    """One axis of a crop: which pixels of the image it shows, and where.

    source: the pixels of the image.
    size, start: how many pixels of the crop they fill, and the first of them.
    """

    source: slice
    size: int
    start: int


@dataclasses.dataclass(frozen=True)
class Affine:
    """Random stretch, rotation and shear.

    Attributes:
      rotation_deg: largest angle of the rotation, in degrees; the angle is uniform between minus and plus this.
      shear_deg: largest angle by which vertical lines lean, in degrees; uniform, too.
      aspect: width and height are stretched against each other by a factor between 1 / aspect and aspect. Its logarithm is
        uniform, and the area stays.
      probability: share of the images that are rotated and sheared. All images are stretched.
    """

    rotation_deg: float = 0.0
    shear_deg: float = 0.0
    aspect: float = 1.0
    probability: float = 1.0

    def draw_stretch(self, generator: np.random.Generator) -> tuple[float, float]:
        """Draw the factors of height and width, whose product is 1; without a stretch, draw no random number."""
        if self.aspect == 1:
            return 1.0, 1.0
        limit = math.log(self.aspect)
        root = math.exp(generator.uniform(-limit, limit) / 2)
        return 1 / root, root

    def draw_angles(self, generator: np.random.Generator) -> tuple[float, float] | None:
        """Draw the angles of rotation and shear, in degrees; None if this image keeps its axes."""
        if not (self.rotation_deg or self.shear_deg) or generator.random() >= self.probability:
            return None
        rotation, shear = (generator.uniform(-limit, limit) for limit in (self.rotation_deg, self.shear_deg))
        return rotation, shear


def linear_part(
    zoom: tuple[float, float], is_mirrored: bool, rotation_deg: float, shear_deg: float
) -> Float[np.ndarray, "2 2"]:
    """Return the matrix that maps a step (x, y) in the image to a step in the crop: R · H · F · Z.

    Z zooms, F mirrors left and right, H shears (x grows by y · tan of the angle), and R rotates counterclockwise as seen on the
    screen, where y points down. They act in this order. `zoom` is (height, width).
    """
    rotation, lean = math.radians(rotation_deg), math.tan(math.radians(shear_deg))
    cosine, sine = math.cos(rotation), math.sin(rotation)
    rotate = np.array([[cosine, sine], [-sine, cosine]])
    shear = np.array([[1.0, lean], [0.0, 1.0]])
    return rotate @ shear @ np.diag([-zoom[1] if is_mirrored else zoom[1], zoom[0]])


def warp_pair(
    pair: Pair, crop_px: int, rows: Span, columns: Span, is_mirrored: bool, rotation_deg: float, shear_deg: float
) -> Pair:
    """Return a (crop_px, crop_px) pair: the spans of the image, mirrored, sheared and rotated about their common center.

    Let s be the center of the spans in the image, and t their center in the crop, with pixel i reaching from i to i + 1. The
    position p of the crop shows the position q of the image with p - t = R H F Z (q - s), see `linear_part`. Everything is
    resampled once: the image is bilinear, a label is that of the nearest pixel. What lies outside the image is void.
    """
    centers = [(span.source.start + span.source.stop) / 2 for span in (columns, rows)]
    targets = [span.start + span.size / 2 for span in (columns, rows)]
    height, width = (span.size / (span.source.stop - span.source.start) for span in (rows, columns))
    inverse = np.linalg.inv(linear_part((height, width), is_mirrored, rotation_deg, shear_deg))
    # OpenCV counts from the centers of the pixels, which are at a half.
    shift = centers + inverse @ (0.5 - np.array(targets)) - 0.5
    corners = shift[:, None] + inverse @ np.array([[0, crop_px, 0, crop_px], [0, 0, crop_px, crop_px]])
    # Cut out what the crop can see: OpenCV does not warp images of 32,767 pixels a side.
    limits = np.array(pair.label.shape[::-1])
    low = np.clip(np.floor(corners.min(1)).astype(int) - 2, 0, limits - 1)
    high = np.clip(np.ceil(corners.max(1)).astype(int) + 3, low + 1, limits)
    seen = slice(low[1], high[1]), slice(low[0], high[0])
    matrix = np.column_stack([inverse, shift - low])
    image = _warp_channels(pair.image[seen], matrix, crop_px, padding_of(pair.image))
    label = _warp(pair.label[seen], matrix, crop_px, cv2.INTER_NEAREST, (void_of(pair.label.dtype),))
    return Pair(image, label)


def _warp_channels(image: np.ndarray, matrix: np.ndarray, size: int, border: tuple[float, ...]) -> np.ndarray:
    starts = range(0, len(border), MAX_WARPED)
    parts = [slice(start, start + MAX_WARPED) for start in starts]
    warped = [_warp(image[..., part], matrix, size, cv2.INTER_LINEAR, border[part]) for part in parts]
    return warped[0] if len(warped) == 1 and warped[0].ndim == 3 else np.dstack(warped)


def _warp(
    array: np.ndarray, matrix: np.ndarray, size: int, interpolation: int, border: tuple[float, ...]
) -> np.ndarray:
    # OpenCV cannot read every view of an array, such as one with a single row of a wider one.
    array = np.ascontiguousarray(array)
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(array, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
