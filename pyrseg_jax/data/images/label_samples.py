"""Return the samples that a label file stores. PIL is made for pictures: it stretches few bits to eight, and inverts some."""

import numpy as np
from jaxtyping import Shaped
from PIL import ImageFile

from pyrseg_jax.data.images.png_chunks import read_png_header
from pyrseg_jax.data.images.tiff_layout import BITS, COMPRESSION, PHOTOMETRIC, SAMPLE_FORMAT, SAMPLES_PER_PIXEL, tag
from pyrseg_jax.errors import UserError

# PIL's modes with one number per pixel. The indices of a palette image ("P") are the labels; its colors are only for display.
LABEL_MODES = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L"}
_FEW_BITS = (2, 4)
_WHITE_IS_ZERO = 0  # a TIFF's photometric interpretation: 0 is white, and PIL inverts the samples
_SIGNED, _FLOAT, _COMPLEX = 2, 3, 6  # sample formats of TIFF
_LOSSY = {
    6: "JPEG",
    7: "JPEG",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    50001: "WebP",
    34892: "JPEG",
}


def check_label_file(image: ImageFile.ImageFile, name: str, expected: str) -> None:
    """Check, before it is decoded, that a label file stores one whole number per pixel, and stores it unchanged.

    Args:
      image: as opened.
      name: the file, for messages.
      expected: the values that a label map may hold, in words.

    Raises:
      UserError: naming the file and what its pixels are.
    """
    samples, sample_format = 1, 1
    if image.format == "TIFF":
        samples, sample_format = tag(image, SAMPLES_PER_PIXEL, 1), tag(image, SAMPLE_FORMAT, 1)
        if lossy := _LOSSY.get(tag(image, COMPRESSION, 1)):
            raise UserError(
                f"{name} is a TIFF compressed as {lossy}, which changes label values; store label maps as PNG"
            )
    if sample_format in (_FLOAT, _COMPLEX) or image.mode == "F":
        raise UserError(
            f"{name} stores floating-point numbers of {tag(image, BITS, 32)} bits: a label map holds whole "
            f"numbers, the class value, {expected}; store it as PNG"
        )
    if image.mode not in LABEL_MODES or samples != 1:
        channels = image.mode if image.mode not in LABEL_MODES else f"{image.mode} and others"
        raise UserError(
            f"{name} has the channels {channels} ({max(samples, len(image.getbands()))} numbers per pixel): a label map has one, "
            f"the class value, {expected}; convert its colors to class values"
        )


def stored_samples(image: ImageFile.ImageFile, data: bytes, name: str) -> Shaped[np.ndarray, "h w"]:
    """Return the numbers that a label file stores, as an array of integers.

    Args:
      image: decoded, and checked by `check_label_file`.
      data: the file.
      name: the file, for messages.

    Raises:
      UserError: naming the bit depth, if the samples cannot be told from what PIL returns.
    """
    array = np.asarray(image)
    array = array.astype(np.uint8) if array.dtype == bool else array.astype(array.dtype.newbyteorder("="), copy=False)
    bits, sample_format, is_inverted = _coding(image, data)
    if is_inverted and image.mode in ("1", "L"):
        array = (1 if image.mode == "1" else 255) - array
    if bits in _FEW_BITS and image.mode == "L":
        factor = 255 // (2**bits - 1)
        if (array % factor).any():
            raise UserError(
                f"{name} stores {bits} bits per pixel, which cannot be read exactly: store it with 8 bits per pixel"
            )
        array = array // factor
    if sample_format == _SIGNED and bits == 8:
        array = array.view(np.int8)
    if sample_format != _SIGNED and bits == 32:
        array = array.view(np.uint32)
    return array


def _coding(image: ImageFile.ImageFile, data: bytes) -> tuple[int, int, bool]:
    """Return the bits per sample, the sample format of TIFF, and whether PIL inverted the samples."""
    if image.format == "PNG" and (header := read_png_header(data)):
        return header.depth, 1, False
    if image.format == "TIFF":
        is_inverted = tag(image, PHOTOMETRIC, 0) == _WHITE_IS_ZERO
        return tag(image, BITS, 1), tag(image, SAMPLE_FORMAT, 1), is_inverted
    return 8, 1, False


def with_palette(bmp: bytes) -> bytes:
    """Return a BMP whose palette is not gray: from a gray one PIL returns colors, and with four bits wrong ones."""
    header_size = int.from_bytes(bmp[14:18], "little")
    if int.from_bytes(bmp[28 if header_size > 12 else 24 :][:2], "little") > 8:
        return bmp
    start = 14 + header_size
    return bmp[:start] + b"\1\2\3" + bmp[start + 3 :]
