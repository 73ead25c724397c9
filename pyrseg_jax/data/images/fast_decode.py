"""Decode the common kinds of files with OpenCV, in half of PIL's time; leave everything else to PIL.

Both functions return None for a file that they do not decode. `decode.py` then asks PIL, and says what is wrong with it. OpenCV
chooses decoders by content, too, so it only gets files that were recognized as JPEG or PNG.
"""

import cv2
import numpy as np
from jaxtyping import UInt8

from pyrseg_jax.data.images.claimed_size import MAX_PIXELS, min_bytes
from pyrseg_jax.data.images.jpeg_header import JpegHeader, read_jpeg_header
from pyrseg_jax.data.images.jpeg_scan import ends_early, may_end_early
from pyrseg_jax.data.images.orientation import UPRIGHT, orientation_in
from pyrseg_jax.data.images.png_chunks import GRAY, only_gray_samples, read_png_header

# OpenCV refuses larger images; its own limits may be lower in the environment.
_MAX_SIDE = 2**20


def decode_upright_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decode a complete, upright JPEG in color or gray to RGB.

    OpenCV and PIL both use libjpeg-turbo and return the same pixels. But OpenCV says nothing about a file that is cut off, and
    converts CMYK differently. All of these go to PIL.
    """
    # A file that was cut off lacks the end-of-image marker FF D9.
    if not (data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9")):
        return None
    header = read_jpeg_header(data)
    if header is None or not _is_plain(header) or header.height * header.width > MAX_PIXELS:
        return None
    if len(data) < min_bytes("JPEG", header.width, header.height, data):
        return None
    pixels = _decode(data)
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        return None
    if may_end_early(pixels) and ends_early(data, header.scan_start, pixels, _decode):
        return None
    return pixels


def _is_plain(header: JpegHeader) -> bool:
    is_upright = orientation_in(header.exif, header.xmp) == UPRIGHT
    return is_upright and header.precision == 8 and len(header.sampling) in (1, 3)


def _decode(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # PIL reports the error
        return None


def is_gray_png(data: bytes) -> bool:
    """Read from the header whether a file is a PNG with one eight-bit channel."""
    header = read_png_header(data)
    return header is not None and header.depth == 8 and header.color_type == GRAY


def decode_gray_png(data: bytes) -> UInt8[np.ndarray, "h w"] | None:
    """Decode a PNG with one channel of eight bits; return None for other and damaged files."""
    header = read_png_header(data)
    if header is None or not is_gray_png(data) or header.height * header.width > MAX_PIXELS:
        return None
    if max(header.height, header.width) > _MAX_SIDE or len(data) < min_bytes("PNG", header.width, header.height, data):
        return None
    plain = only_gray_samples(data)
    if plain is None:
        return None
    try:
        values = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    return values if values is not None and values.shape == (header.height, header.width) else None
