"""Read what a JPEG says about itself, without decoding it. Source: ITU-T T.81 (JPEG), annex B."""

import dataclasses
import math
from collections.abc import Iterator

_SKIPPED = {0x00, 0xFF, 0x01, *range(0xD0, 0xD9)}  # no markers, or markers without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start-of-frame markers: the low bits are the coding process
_ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_METADATA = {*range(0xE1, 0xEE), 0xEF, 0xFE}  # all but JFIF and Adobe, which name the color space
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_EXIF = b"Exif\0\0"


@dataclasses.dataclass(frozen=True)
class JpegHeader:
    """The frame header of a JPEG and its metadata.

    Attributes:
      height, width: as stored, before any rotation.
      precision: bits per sample.
      sampling: (horizontal, vertical) sampling factors of each component.
      is_arithmetic: whether the scan data is arithmetic-coded instead of Huffman-coded.
      is_progressive: whether the coefficients of a block are spread over several scans.
      scan_start: offset of the first scan's marker.
      exif: the EXIF data, which begins as a TIFF file does; empty if there is none.
      xmp: the XMP metadata; empty if there is none.
    """

    height: int
    width: int
    precision: int
    sampling: tuple[tuple[int, int], ...]
    is_arithmetic: bool
    is_progressive: bool
    scan_start: int
    exif: bytes
    xmp: bytes

    @property
    def num_blocks(self) -> int:
        """Number of 8 × 8 blocks of all components that the scan data must describe."""
        most_across, most_down = (max(factors) for factors in zip(*self.sampling, strict=True))
        across = [math.ceil(math.ceil(self.width * factor / most_across) / 8) for factor, _ in self.sampling]
        down = [math.ceil(math.ceil(self.height * factor / most_down) / 8) for _, factor in self.sampling]
        return sum(a * b for a, b in zip(across, down, strict=True))


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Read the segments up to the first scan; return None if they are not well-formed."""
    frame, exif, xmp = None, b"", b""
    for marker, start, end in _segments(data):
        body = start + 4
        if marker == _START_OF_SCAN:
            return JpegHeader(*frame, scan_start=start, exif=exif, xmp=xmp) if frame else None
        if marker in _FRAMES:
            frame = _read_frame(data[body:end], marker)
            if frame is None:
                return None
        elif marker == _APP1 and data.startswith(_EXIF, body):
            exif = exif or data[body + len(_EXIF) : end]
        elif marker == _APP1 and data.startswith(b"http://ns.adobe.com/xap/1.0/\0", body):
            xmp = xmp or data[body:end]
    return None


def without_metadata(data: bytes) -> bytes:
    """Return a JPEG without the segments that do not decide its pixels; a decoder may stumble over them."""
    parts = [data[:2]]
    for marker, start, end in _segments(data):
        if marker == _START_OF_SCAN:
            return b"".join([*parts, data[start:]])
        if marker not in _METADATA:
            parts.append(data[start:end])
    return data


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment up to the first scan, and the offsets where it begins and ends."""
    position = 2
    # Like libjpeg, skip whatever is between a segment and the next marker.
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 <= len(data):
        marker = data[position + 1]
        if marker in _SKIPPED:
            position += 1
            continue
        end = position + 2 + max(int.from_bytes(data[position + 2 : position + 4]), 2)
        yield marker, position, end
        position = end


def _read_frame(body: bytes, marker: int) -> tuple | None:
    if len(body) < 6 or len(body) < 6 + 3 * body[5] or not body[5]:
        return None
    height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
    sampling = tuple((body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15) for i in range(body[5]))
    if not height or not width or not all(1 <= factor <= 4 for factors in sampling for factor in factors):
        return None
    return height, width, body[0], sampling, marker in _ARITHMETIC, marker in _PROGRESSIVE
