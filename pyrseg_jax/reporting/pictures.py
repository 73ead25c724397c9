"""The three files that a prediction is written to."""

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt
from PIL import Image

from pyrseg_jax.data.images import geotiff
from pyrseg_jax.data.images.photograph import say_once
from pyrseg_jax.data.images.tiff_directory import find_entry
from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.reporting.figures import pyramid_figure
from pyrseg_jax.reporting.result import Result
from pyrseg_jax.storage.atomic import write_bytes_atomically

LONGEST_JPEG_PX = 65500  # of a side: libjpeg's limit
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


def name_of_geotiff(name: str) -> str:
    """Return `NAME_labels.tif`, which a GeoTIFF of the same name does not have."""
    return f"{name}_labels.tif"


def encode_in_place(data: bytes, name: str, result: Result) -> bytes | None:
    """Return the label map of a GeoTIFF as a GeoTIFF in the same place on Earth; None for images without a place.

    Args:
      data: the file of the image.
      name: the file, for messages.
      result: its prediction. Void is the file's no-data value.
    """
    if not geotiff.is_tiff(data):
        return None
    if not geotiff.is_available():
        if find_entry(data, _GEO_KEYS) is not None:
            say_once(name, "has a coordinate system, which its label map will not have: install the extra `geo`")
        return None
    try:
        profile = geotiff.read_profile(data, name)
    except UserError:  # a photograph that GDAL does not read
        return None
    if not profile.is_georeferenced or (profile.height, profile.width) != result.labels.shape:
        return None
    space = result.label_space
    return geotiff.encode_labels(space.to_file_values(result.labels), profile, space.void_file_id)


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
    labels = io.BytesIO()
    Image.fromarray(result.label_space.to_file_values(result.labels)).save(labels, "PNG")
    write(folder / files.labels, labels.getvalue())
    missing = {}
    for file, draw in (
        (files.overlay, lambda: _encode(_fit_jpeg(result.overlay(), files.overlay), "JPEG", quality=92)),
        (files.pyramid, lambda: _encode(pyramid_figure(result, truth=truth, title=title or name), "PNG")),
    ):
        try:
            content = draw()
        except Exception as error:  # of Matplotlib, PIL or NumPy: whatever it is, the other files are good
            missing[folder / file] = f"{folder / file} cannot be drawn ({reason_of(error)}): {files.labels} is complete"
            continue
        write(folder / file, content)
    return missing


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
