"""Read what a JPEG says about itself, without decoding it. Source: ITU-T T.81 (JPEG), annex B."""

import dataclasses
import math

_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start-of-frame markers: the low bits are the coding process
_ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
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
      scan_start: offset of the first scan's marker.
      exif: the EXIF data, which begins as a TIFF file does; empty if there is none.
      xmp: the XMP metadata; empty if there is none.
    """

    height: int
    width: int
    precision: int
    sampling: tuple[tuple[int, int], ...]
    is_arithmetic: bool
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
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker in _STANDALONE:  # fill bytes may precede a marker
            position += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4])
        body = position + 4
        if marker == _START_OF_SCAN:
            return JpegHeader(*frame, scan_start=position, exif=exif, xmp=xmp) if frame else None
        if marker in _FRAMES:
            frame = _read_frame(data[body : position + 2 + length], marker)
            if frame is None:
                return None
        elif marker == _APP1 and data.startswith(_EXIF, body):
            exif = exif or data[body + len(_EXIF) : position + 2 + length]
        elif marker == _APP1 and data.startswith(b"http://ns.adobe.com/xap/1.0/\0", body):
            xmp = xmp or data[body : position + 2 + length]
        position += 2 + max(length, 2)
    return None


def _read_frame(body: bytes, marker: int) -> tuple | None:
    if len(body) < 6 or len(body) < 6 + 3 * body[5] or not body[5]:
        return None
    height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
    sampling = tuple((body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15) for i in range(body[5]))
    if not height or not width or not all(1 <= factor <= 4 for factors in sampling for factor in factors):
        return None
    return height, width, body[0], sampling, marker in _ARITHMETIC
