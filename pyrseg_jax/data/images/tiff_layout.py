"""Check that a TIFF holds the data of all its pixels. Source: TIFF, revision 6.0, sections 3, 8 and 15.

PIL leaves pixels black that belong to no strip, and reads strips at offset 0, which GDAL writes for empty ones, from the header.
"""

import math
import zlib
from collections.abc import Iterable
from typing import Any

from PIL import Image

from pyrseg_jax.data.images.tiff_directory import find_entry
from pyrseg_jax.errors import UserError

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES_PER_PIXEL, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT, DNG_VERSION = 322, 323, 324, 325, 339, 50706
EXTRA_SAMPLES, FILL_ORDER = 338, 266
_DEFLATE = (8, 32946)  # compressions
_PIECE = 2**14  # packed bytes at a time; they unpack to 16 MiB at most


def tag(image: Image.Image, number: int, default: Any = None) -> Any:
    """Return the value of a TIFF's tag: a number where it holds one, and else a tuple."""
    found = getattr(image, "tag_v2", {}).get(number, default)
    return found[0] if isinstance(found, tuple) and len(found) == 1 else found


def describe_tiff(data: bytes) -> str:
    """Describe in words how the samples of a TIFF are stored, for a file that PIL does not open."""
    kinds = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
    found = {number: find_entry(data, number) for number in (BITS, SAMPLES_PER_PIXEL, SAMPLE_FORMAT, PHOTOMETRIC)}
    bits, samples, kind, photometric = (entry.value if entry else None for entry in found.values())
    return (
        f"a TIFF with {samples or 1} samples per pixel of {bits or 1} bits ({kinds.get(int(kind or 1), 'unknown')} numbers, "
        f"photometric interpretation {photometric})"
    )


def check_tiff(image: Image.Image, data: bytes, name: str) -> None:
    """Check the strips or tiles of an opened TIFF.

    Raises:
      UserError: naming the file, if it is a camera's raw file, or if parts of the picture are missing.
    """
    if tag(image, DNG_VERSION) is not None:
        raise UserError(f"{name} is a camera raw file (DNG): convert it to JPEG or PNG")
    if tag(image, PLANAR, 1) == 2 and tag(image, COMPRESSION, 1) == 1 and max(_tuple(tag(image, BITS, 1))) > 8:
        # PIL takes each of these planes for one of eight bits.
        raise UserError(
            f"{name} is {describe_tiff(data)} in separate planes, which no decoder here reads: store it as PNG"
        )
    is_tiled = tag(image, TILE_OFFSETS) is not None
    offsets = _tuple(tag(image, TILE_OFFSETS if is_tiled else STRIP_OFFSETS, ()))
    counts = _tuple(tag(image, TILE_BYTES if is_tiled else STRIP_BYTES, ()))
    part, expected = ("tile", _num_tiles(image)) if is_tiled else ("strip", _num_strips(image))
    if tag(image, PLANAR, 1) == 2:
        expected *= tag(image, SAMPLES_PER_PIXEL, 1)
    advice = "replace the file or remove it from the data set"
    if len(offsets) < expected:
        raise UserError(f"{name} is damaged (it has {len(offsets)} of {expected} {part}s): {advice}")
    for i, (offset, count) in enumerate(zip(offsets, counts or [1] * len(offsets), strict=False)):
        if not offset or not count:
            raise UserError(f"{name} has no data in {part} {i} of {expected} (a sparse TIFF): write it with all pixels")
        if offset + count > len(data):
            raise UserError(
                f"{name} is cut off ({part} {i} of {expected} ends at byte {offset + count} of {len(data)}): {advice}"
            )


def find_tiff_damage(image: Image.Image, data: bytes) -> str | None:
    """Unpack the deflate-compressed parts of a TIFF, and say in words which of them is damaged, or return None.

    They end in a checksum, which libtiff does not read. Nothing that is unpacked is kept.
    """
    if tag(image, COMPRESSION, 1) not in _DEFLATE or tag(image, FILL_ORDER, 1) != 1:
        return None
    is_tiled = tag(image, TILE_OFFSETS) is not None
    offsets = _tuple(tag(image, TILE_OFFSETS if is_tiled else STRIP_OFFSETS, ()))
    counts = _tuple(tag(image, TILE_BYTES if is_tiled else STRIP_BYTES, ()))
    most = 8 * tag(image, SAMPLES_PER_PIXEL, 1) * math.prod(image.size) + 2**20  # no part needs more bytes
    for i, (offset, count) in enumerate(zip(offsets, counts, strict=False)):
        if problem := _find_zlib_problem(memoryview(data)[offset : offset + count], most):
            return f"{'tile' if is_tiled else 'strip'} {i} cannot be unpacked: {problem}"
    return None


def _find_zlib_problem(packed: memoryview, most: int) -> str | None:
    unpacker, found = zlib.decompressobj(), 0
    try:
        for start in range(0, len(packed), _PIECE):
            found += len(unpacker.decompress(packed[start : start + _PIECE]))
            if found > most or unpacker.eof:
                return None
    except zlib.error as error:
        return str(error)
    return "its data has no end"


def _num_strips(image: Image.Image) -> int:
    height = tag(image, HEIGHT)
    return -(-height // max(1, min(tag(image, ROWS_PER_STRIP, height), height)))


def _num_tiles(image: Image.Image) -> int:
    return -(-tag(image, WIDTH) // tag(image, TILE_WIDTH)) * -(-tag(image, HEIGHT) // tag(image, TILE_HEIGHT))


def _tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Iterable) else (value,)
