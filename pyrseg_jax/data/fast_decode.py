"""Decode the common kinds of files with OpenCV, in half of PIL's time; leave everything else to PIL.

Both functions return None for a file that they do not decode. `decode.py` then asks PIL, which also knows what is wrong with it.
"""

import io
import warnings

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

ORIENTATION_TAG = 0x0112  # of the EXIF standard; 1 means upright


def decode_upright_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decode a complete, upright JPEG in color or gray to RGB.

    OpenCV and PIL both use libjpeg-turbo and return the same pixels. But OpenCV says nothing about a file that is cut off,
    converts CMYK differently, and does not limit the size of an image. All of these go to PIL.
    """
    # A file that was cut off lacks the end-of-image marker FF D9.
    if not (data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9")):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = Image.open(io.BytesIO(data))
            is_upright = header.getexif().get(ORIENTATION_TAG, 1) == 1
            if header.format != "JPEG" or header.mode not in ("RGB", "L") or not is_upright:
                return None
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except Exception:  # PIL reports the error
        return None


def is_gray_png(data: bytes) -> bool:
    """Read from the header whether a file is a PNG with one eight-bit channel."""
    # Bytes 24 and 25 of a PNG are its bit depth and color type; color type 0 is gray.
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data[24:26] == b"\x08\x00"


def decode_gray_png(data: bytes) -> UInt8[np.ndarray, "h w"] | None:
    """Decode a PNG with one channel of eight bits; return None for other and damaged files."""
    if not is_gray_png(data):
        return None
    height, width = int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    if Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS:
        return None
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    return values if values is not None and values.ndim == 2 else None
