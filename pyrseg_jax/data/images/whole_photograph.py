"""Open a photograph's file and check that none of its pixels is missing."""

import numpy as np
from PIL import Image

from pyrseg_jax.data.images.image_formats import IMAGE_FORMATS
from pyrseg_jax.data.images.jpeg_header import read_jpeg_header
from pyrseg_jax.data.images.jpeg_scan import ends_early, has_end, may_end_early
from pyrseg_jax.data.images.open_image import ACTION, ADVICE, load_image, open_image
from pyrseg_jax.data.images.photograph import say_once
from pyrseg_jax.errors import UserError, naming_file


def open_photograph(data: bytes, name: str) -> Image.Image:
    """Decode a file of any of the formats of photographs; raises UserError naming it, if it is damaged or cut off."""
    image = open_image(data, name, IMAGE_FORMATS)
    load_image(image, data, name)
    with naming_file(name, ACTION, ADVICE):
        if image.format == "JPEG":
            _check_complete(image, data, name)
        if getattr(image, "n_frames", 1) > 1:
            say_once(name, f"holds {getattr(image, 'n_frames', 1)} pictures: only the first is used")
    return image


def _check_complete(image: Image.Image, data: bytes, name: str) -> None:
    header = read_jpeg_header(data)
    if header is None:
        return
    pixels = np.asarray(image)
    if not has_end(data, header.scan_start):
        raise UserError(f"{name} is cut off (it has no end-of-image marker): {ADVICE}")
    if may_end_early(pixels) and ends_early(data, header.scan_start, pixels, _pixels_of_jpeg):
        raise UserError(f"{name} is cut off (its image data ends before the last pixel): {ADVICE}")


def _pixels_of_jpeg(data: bytes) -> np.ndarray:
    image = open_image(data, "", IMAGE_FORMATS)
    load_image(image, data, "")
    return np.asarray(image)
