"""Write a PNG row by row, so that a picture of any size never is in memory as a whole."""

import struct
import zlib
from typing import Any

import numpy as np
from jaxtyping import Shaped

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {1: 0, 3: 2}  # channels → gray, RGB
_LEVEL = 4  # of zlib: half the time of 6 for a few percent more bytes
_CHUNK_BYTES = 1 << 18


class PngWriter:
    """Write rows of pixels to a PNG.

    Args:
      file: a file open for writing.
      width, height: in pixels.
      num_channels: 1 (gray) or 3 (RGB).
      depth: bits per sample, 8 or 16.

    Raises:
      ValueError: if a side or the number of channels is not one that a PNG has.
    """

    def __init__(self, file: Any, width: int, height: int, num_channels: int = 1, depth: int = 8):
        if num_channels not in _COLOR_TYPES or depth not in (8, 16):
            raise ValueError(f"expected 1 or 3 channels of 8 or 16 bits, found {num_channels} of {depth}")
        if not (0 < width < 2**31 and 0 < height < 2**31):
            raise ValueError(f"expected sides of 1 to 2^31 - 1 pixels, found {width} × {height}")
        self._file, self._shape, self._type = file, (width, num_channels), np.dtype(f">u{depth // 8}")
        self._num_left, self._deflate, self._waiting = height, zlib.compressobj(_LEVEL), bytearray()
        file.write(_SIGNATURE)
        self._write(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, _COLOR_TYPES[num_channels], 0, 0, 0))

    def write(self, rows: Shaped[np.ndarray, "h w *c"]) -> None:
        """Write the next rows, (h, width) or (h, width, channels); raises ValueError if they do not fit."""
        width, num_channels = self._shape
        rows = rows.reshape(len(rows), -1)
        if rows.shape[1] != width * num_channels or len(rows) > self._num_left:
            raise ValueError(
                f"expected at most {self._num_left} rows of {width} × {num_channels} samples, found {rows.shape}"
            )
        data = rows.astype(self._type, copy=False).view(np.uint8).reshape(len(rows), -1)
        filtered = np.zeros((len(rows), data.shape[1] + 1), np.uint8)  # the first byte of a row names its filter: none
        filtered[:, 1:] = data
        self._waiting += self._deflate.compress(filtered.tobytes())
        self._num_left -= len(rows)
        if len(self._waiting) >= _CHUNK_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write the end; raises ValueError if rows are missing."""
        if self._num_left:
            raise ValueError(f"{self._num_left} rows are missing")
        self._waiting += self._deflate.flush()
        self._flush()
        self._write(b"IEND", b"")

    def _flush(self) -> None:
        self._write(b"IDAT", bytes(self._waiting))
        self._waiting.clear()

    def _write(self, kind: bytes, content: bytes) -> None:
        self._file.write(struct.pack(">I", len(content)) + kind + content)
        self._file.write(struct.pack(">I", zlib.crc32(kind + content)))
