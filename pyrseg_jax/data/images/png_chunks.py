"""Check a PNG before a decoder sees it. Source: PNG specification, third edition (W3C), sections 5, 7 and 8.

PIL ignores wrong checksums, and fills pixels that the file does not hold with zeros. So both are checked here.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # color types
_DEPTHS = {GRAY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GRAY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
_SAMPLES = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGB_ALPHA: 4}
# (first row, first column, step of rows, step of columns) of the seven passes of an interlaced PNG.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
# Nothing else changes pixels as they are used here. Without the others, no decoder needs to read them.
_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_PIECE = 2**14  # packed bytes at a time; they unpack to 16 MiB at most


class PngHeader(NamedTuple):
    """The header of a PNG: size in pixels, bits per sample, color type, and whether its rows are interlaced."""

    width: int
    height: int
    depth: int
    color_type: int
    is_interlaced: bool


def read_png_header(data: bytes) -> PngHeader | None:
    """Read the header; return None if it is not that of a PNG."""
    if not data.startswith(SIGNATURE + b"\0\0\0\x0dIHDR") or len(data) < 33:
        return None
    width, height, depth, color_type, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if depth not in _DEPTHS.get(color_type, ()):
        return None
    return PngHeader(width, height, depth, color_type, interlace == 1)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each chunk, and the offsets where its data begins and ends; stop where the file ends."""
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        yield data[position + 4 : position + 8], position + 8, position + 8 + length
        position += length + 12


def find_png_damage(data: bytes) -> str | None:
    """Check the checksums and the length of a PNG's image data; return what is wrong in words, or None.

    Unpacks the image data piece by piece and keeps none of it, so that a small file cannot fill the memory.
    """
    header = read_png_header(data)
    if header is None:
        return "its header is not that of a PNG"
    parts = []
    for kind, start, end in png_chunks(data):
        name = kind.decode("latin-1")
        if kind == b"IEND":  # the pixels are complete, also where its checksum was cut off
            break
        if end + 4 > len(data):
            return f"it is cut off: its chunk {name} at byte {start - 8} should have {end - start} bytes"
        is_critical = not kind[0] & 32
        if is_critical and _has_wrong_checksum(data, start, end):
            return f"the checksum of its chunk {name} at byte {start - 8} is wrong"
        if kind == b"IHDR" and start > 16:
            return f"it has a second header at byte {start - 8}"
        if kind == b"IDAT":
            parts.append(memoryview(data)[start:end])
    return _find_short_data(parts, num_raw_bytes(header))


def num_raw_bytes(header: PngHeader) -> int:
    """Number of bytes that the image data of a PNG unpacks to: the samples, and one byte per row for its filter."""
    bits = header.depth * _SAMPLES[header.color_type]
    if not header.is_interlaced:
        return header.height * (1 + -(-header.width * bits // 8))
    total = 0
    for row, column, row_step, column_step in _PASSES:
        rows, columns = -(-(header.height - row) // row_step), -(-(header.width - column) // column_step)
        if rows > 0 and columns > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _has_wrong_checksum(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[start - 4 : end]) != int.from_bytes(data[end : end + 4])


def _find_short_data(parts: list[memoryview], expected: int) -> str | None:
    unpacker, found = zlib.decompressobj(), 0
    try:
        for part in parts:
            for start in range(0, len(part), _PIECE):
                if found > expected:
                    return None
                found += len(unpacker.decompress(part[start : start + _PIECE]))
    except zlib.error as error:
        return f"its image data cannot be unpacked: {error}"
    if found < expected:
        return f"its image data ends early: {found} of {expected} bytes"
    return None


def only_gray_samples(data: bytes) -> bytes | None:
    """Return a gray PNG with its header and samples only, or None if it is damaged or has parts that are not known.

    libpng prints what it finds odd in other chunks to standard error, and repeats names from the file as they are. It is not
    called for a file that is cut off or has a wrong checksum either.
    """
    parts = [SIGNATURE]
    for kind, start, end in png_chunks(data):
        is_critical = not kind[0] & 32
        if end + 4 > len(data) or (is_critical and _has_wrong_checksum(data, start, end)):
            return None
        if kind in (b"IHDR", b"IDAT", b"IEND") and (kind != b"IHDR" or len(parts) == 1):
            parts.append(data[start - 8 : end + 4])
        elif is_critical and kind != b"PLTE":
            return None
        if kind == b"IEND":
            return b"".join(parts)
    return None


def without_metadata(data: bytes) -> bytes:
    """Return a PNG with only the chunks that decide its pixels: metadata can be damaged, or unpack to any size."""
    parts = [SIGNATURE]
    for kind, start, end in png_chunks(data):
        if (kind in _NEEDED or not kind[0] & 32) and (kind != b"IHDR" or len(parts) == 1):
            parts.append(data[start - 8 : end + 4])
        if kind == b"IEND":
            break
    return b"".join(parts)
