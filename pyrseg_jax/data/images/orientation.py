"""Find out how a photograph must be turned to be upright, from metadata that may be wrong in any way.

Cameras store the pixels as the sensor read them, and note in EXIF how the camera was held. Other programs rewrite these notes with
odd types or damage them. The pixels of such a photograph are still good, so nothing here raises an exception.
"""

import re
import zlib
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from pyrseg_jax.data.images.avif import open_avif
from pyrseg_jax.data.images.jpeg_header import read_jpeg_header
from pyrseg_jax.data.images.png_chunks import png_chunks
from pyrseg_jax.data.images.tiff_directory import find_entry, upright_entry

UPRIGHT = 1
_TAG = 0x0112  # orientation, in the EXIF standard
_IN_XMP = re.compile(rb'tiff:Orientation(?:=["\']|>)([0-9])')
_MAX_PROFILE_BYTES = 2**20
_TURNED = range(2, 9)  # the orientations that are not upright


def orientation_of(data: bytes) -> int:
    """Return the EXIF orientation of a photograph's file, 1 … 8; 1, which is upright, if none can be read.

    Reads only the header of a JPEG. Orientations 5 … 8 exchange height and width.
    """
    return find_orientation(data) or UPRIGHT


def find_orientation(data: bytes) -> int | None:
    """Return the orientation 1 … 8 of a file, 1 if it names none, and None if what it names cannot be understood."""
    if data.startswith(b"\xff\xd8"):
        header = read_jpeg_header(data)
        return orientation_in(header.exif, header.xmp) if header else UPRIGHT
    if data.startswith(b"\x89PNG"):
        return orientation_in(*_metadata_of_png(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return orientation_in(*_metadata_of_webp(data))
    if data[4:8] == b"ftyp":
        return orientation_in(_exif_of_avif(data))
    return orientation_in(data)  # of a TIFF; other formats name none


def orientation_in(exif: bytes, xmp: bytes = b"") -> int | None:
    """Return the orientation that EXIF data names or, if it names none, the one in XMP metadata; see `find_orientation`."""
    entry = find_entry(exif.removeprefix(b"Exif\0\0"), _TAG)
    if entry is not None:
        return _checked(entry.value)
    found = _IN_XMP.search(xmp)
    return _checked(int(found[1])) if found else UPRIGHT


def orientation_of_image(image: Image.Image) -> int:
    """Return the orientation 1 … 8 of a PIL image, or 1 if it names none that can be understood."""
    try:
        value = image.getexif().get(_TAG, UPRIGHT)
    except Exception:  # PIL raises many kinds for damaged EXIF data
        return orientation_in(image.info.get("exif", b"")) or UPRIGHT
    if isinstance(value, tuple | bytes | str) and len(value) >= 1:
        value = int(value) if isinstance(value, str) and value.strip("\0 ").isdigit() else value[0]
    return _checked(value) or UPRIGHT


def _checked(number: Any) -> int | None:
    # Many programs write 0, which the standard does not define, for "not known".
    return UPRIGHT if number == 0 else int(number) if number in _TURNED or number == UPRIGHT else None


def without_orientation(tiff: bytes) -> bytes:
    """Return a TIFF that says that it is upright: PIL would turn it while it is read."""
    entry = find_entry(tiff, _TAG)
    if entry is None or entry.value == UPRIGHT:
        return tiff
    upright = upright_entry(tiff, entry, _TAG)
    return tiff[: entry.offset] + upright + tiff[entry.offset + entry.size :]


def size_when_turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the size of an image that is turned upright: the orientations 5 … 8 exchange width and height."""
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size


def turned(pixels: Shaped[np.ndarray, "h w c"], orientation: int) -> Shaped[np.ndarray, "h2 w2 c"]:
    """Turn an image upright."""
    if orientation not in _TURNED:
        return pixels
    if orientation >= 5:  # these exchange rows and columns, after which they mirror like others
        pixels = pixels.swapaxes(0, 1)
    rows, columns = (
        slice(None, None, -1 if orientation in mirrored else 1) for mirrored in ((3, 4, 7, 8), (2, 3, 6, 7))
    )
    return np.ascontiguousarray(pixels[rows, columns])


def _metadata_of_png(data: bytes) -> tuple[bytes, bytes]:
    exif, xmp = b"", b""
    for kind, start, end in png_chunks(data):
        if kind == b"eXIf":
            exif = exif or data[start:end]
        elif kind == b"iTXt" and data.startswith(b"XML:com.adobe.xmp", start):
            xmp = xmp or data[start:end]
        elif kind in (b"zTXt", b"tEXt") and data.startswith(b"Raw profile type exif\0", start):
            exif = exif or _raw_profile(kind, data[start + 22 : end])
    return exif, xmp


def _exif_of_avif(data: bytes) -> bytes:
    try:
        # The container can name a rotation, too; PIL writes it into the EXIF data.
        return open_avif(data).info.get("exif", b"")
    except Exception:  # decoding the pixels will report the damage
        return b""


def _raw_profile(kind: bytes, body: bytes) -> bytes:
    """Read EXIF data as ImageMagick wrote it before PNG had a chunk for it: a name, a length, and hexadecimal digits."""
    try:
        text = zlib.decompressobj().decompress(body[1:], _MAX_PROFILE_BYTES) if kind == b"zTXt" else body
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except (zlib.error, ValueError):
        return b""


def _metadata_of_webp(data: bytes) -> tuple[bytes, bytes]:
    found = {b"EXIF": b"", b"XMP ": b""}
    position = 12
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if kind in found:
            found[kind] = found[kind] or data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    return found[b"EXIF"], found[b"XMP "]
