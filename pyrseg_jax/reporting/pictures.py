"""The pictures that a prediction is written to."""

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt, UInt8
from PIL import Image

from pyrseg_jax.data.images import geotiff
from pyrseg_jax.data.images.geotiff import GeoProfile
from pyrseg_jax.data.images.photograph import say_once
from pyrseg_jax.data.images.tiff_directory import find_entry
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.reporting.figures import pyramid_figure
from pyrseg_jax.reporting.palette import colors_of
from pyrseg_jax.reporting.result import Result, overlaid
from pyrseg_jax.storage.atomic import write_bytes_atomically
from pyrseg_jax.storage.regular_file import open_regular_file

LONGEST_JPEG_PX = 65500  # of a side: libjpeg's limit
MAX_TIFF_BYTES = 2**40  # of a file that is never read whole
_GEO_KEYS = 34735  # GeoTIFF's tag of the coordinate system
log = logging.getLogger(__name__)


class PictureNames(NamedTuple):
    """Names of the files of one prediction: the label map, the colors over the image, and the pyramid."""

    labels: str
    overlay: str
    pyramid: str


def names_of_pictures(name: str) -> PictureNames:
    """Return `NAME.png`, `NAME_overlay.jpg` and `NAME_pyramid.png`."""
    return PictureNames(f"{name}.png", f"{name}_overlay.jpg", f"{name}_pyramid.png")


def find_place(source: bytes | Path, name: str) -> GeoProfile | None:
    """Return where on Earth an image lies; None for images without a place.

    Args:
      source: the file of the image, or its path.
      name: the file, for messages.

    Raises:
      OSError: if a path cannot be read.
    """
    if isinstance(source, Path):
        with open_regular_file(source, MAX_TIFF_BYTES) as file:
            start = file.read(4)
    else:
        start = source
    if not geotiff.is_tiff(start):
        return None
    if not geotiff.is_available():
        if isinstance(source, bytes) and find_entry(source, _GEO_KEYS) is not None:
            say_once(name, "has a coordinate system, which its label map will not have: install the extra `geo`")
        return None
    try:
        profile = geotiff.read_profile(source, name)
    except UserError:  # a photograph that GDAL does not read
        return None
    return profile if profile.is_georeferenced else None


def encode_in_place(labels: UInt[np.ndarray, "h w"], label_space: LabelSpace, place: GeoProfile | None) -> bytes | None:
    """Return a label map as a GeoTIFF in the place of its image; None if there is no place, or the image was turned upright.

    Void is the file's no-data value.
    """
    if place is None or (place.height, place.width) != labels.shape:
        return None
    return geotiff.encode_labels(label_space.to_file_values(labels), place, label_space.void_file_id)


def save_pictures(
    folder: Path,
    name: str,
    result: Result,
    truth: UInt[np.ndarray, "h w"] | None = None,
    title: str | None = None,
    write: Callable[[Path, bytes], None] = write_bytes_atomically,
) -> dict[Path, str]:
    """Write `NAME.png`, `NAME_overlay.jpg` and `NAME_pyramid.png`, each of them whole or not at all.

    `NAME.png` has one channel and holds the data set's own class numbers. It is written first: where one of the other two cannot
    be drawn, the prediction is not lost.

    Args:
      folder: must exist.
      name: NAME, a safe name of a single file.
      result: the prediction for one image.
      truth: (H, W) train ids of the ground truth, if there is one.
      title: the text above the pyramid; by default `name`.
      write: writes a file, given its path and content.

    Returns:
      The pictures that could not be drawn, and why.

    Raises:
      OSError: if a file cannot be written.
    """
    files = names_of_pictures(name)
    write(folder / files.labels, encode_labels(result.labels, result.label_space))
    missing = {}
    for file, draw in (
        (files.overlay, lambda: encode_overlay(result.image, result.labels, result.label_space, files.overlay)),
        (files.pyramid, lambda: encode_pyramid(result, truth, title or name)),
    ):
        try:
            content = draw()
        except Exception as error:  # of Matplotlib, PIL or NumPy: whatever it is, the other files are good
            missing[folder / file] = f"{folder / file} cannot be drawn ({reason_of(error)}): {files.labels} is complete"
            continue
        write(folder / file, content)
    return missing


def encode_labels(labels: UInt[np.ndarray, "h w"], label_space: LabelSpace) -> bytes:
    """Return a label map as a PNG of one channel with the data set's own class numbers."""
    return _encode(Image.fromarray(label_space.to_file_values(labels)), "PNG")


def encode_overlay(
    image: UInt8[np.ndarray, "h w 3"], labels: UInt[np.ndarray, "h w"], label_space: LabelSpace, name: str
) -> bytes:
    """Return the class colors over an image as a JPEG; `name` says which, in the log."""
    return _encode(_fit_jpeg(overlaid(image, labels, label_space), name), "JPEG", quality=92)


def encode_color(labels: UInt[np.ndarray, "h w"], label_space: LabelSpace) -> bytes:
    """Return the class colors alone as an RGB PNG; void is black."""
    return _encode(Image.fromarray(color_table(label_space)[labels]), "PNG")


def color_table(label_space: LabelSpace) -> UInt8[np.ndarray, "ids 3"]:
    """Return the color of each train id; void is black."""
    colors = np.zeros((label_space.void + 1, 3), np.uint8)
    colors[: label_space.num_classes] = colors_of(label_space)
    return colors


def encode_gray(values: UInt8[np.ndarray, "h w"]) -> bytes:
    """Return values 0 … 255 as a PNG of one channel."""
    return _encode(Image.fromarray(values), "PNG")


def encode_pyramid(result: Result, truth: UInt[np.ndarray, "h w"] | None, title: str) -> bytes:
    """Return the figure of both pyramids as a PNG."""
    return _encode(pyramid_figure(result, truth=truth, title=title), "PNG")


def _encode(picture: Image.Image, format: str, **options) -> bytes:
    data = io.BytesIO()
    picture.save(data, format, **options)
    return data.getvalue()


def _fit_jpeg(picture: Image.Image, name: str) -> Image.Image:
    """Scale down a picture that is too long for a JPEG."""
    if max(picture.size) > LONGEST_JPEG_PX:
        width, height = picture.size
        picture.thumbnail((LONGEST_JPEG_PX, LONGEST_JPEG_PX))
        log.info(
            "%s is drawn at %d × %d pixels instead of %d × %d, because a JPEG has at most %d per side",
            *(name, *picture.size, width, height, LONGEST_JPEG_PX),
        )
    return picture
