"""Find out whether a JPEG holds the data of all its pixels.

libjpeg fills what is missing with gray and only prints a warning, which neither PIL nor OpenCV passes on.
"""

from collections.abc import Callable

import numpy as np

_END_OF_IMAGE = 0xD9
# Scan data goes on after these markers: an escaped FF, restarts of the decoder, and fill bytes.
_INSIDE_A_SCAN = {0x00, 0xFF, *range(0xD0, 0xD8)}
# Bytes that decode to anything but gray. So few are mostly within what libjpeg reads ahead: about more it would print a warning.
_FILLER = b"\x5a\x33"
_GRAY = 128  # of the pixels that libjpeg fills in
_LUMA = np.array([0.299, 0.587, 0.114])


def has_end(data: bytes, scan_start: int) -> bool:
    """Tell whether an end-of-image marker follows the first scan."""
    return data.find(b"\xff\xd9", scan_start) >= 0


def may_end_early(pixels: np.ndarray) -> bool:
    """Tell from the last block of a decoded JPEG, as stored, whether libjpeg may have filled it in.

    Photographs hardly ever end in a flat gray block; `ends_early` decides for those that do.
    """
    height, width = pixels.shape[:2]
    last = pixels[(height - 1) // 8 * 8 :, (width - 1) // 8 * 8 :]
    if last.ndim == 3 and last.shape[-1] != 3:
        return True  # CMYK is too rare to be worth a rule
    brightness = last @ _LUMA if last.ndim == 3 else last
    return bool((np.abs(brightness - float(_GRAY)) < 2).all())


def ends_early(data: bytes, scan_start: int, pixels: np.ndarray, decode: Callable[[bytes], np.ndarray | None]) -> bool:
    """Decode a JPEG once more, with other bytes behind the data of each scan.

    A decoder that has found the data of all pixels ignores them. If the picture changes, then it needed more data than there is.

    Args:
      data: the file.
      scan_start: offset of the first start-of-scan marker.
      pixels: the picture as decoded.
      decode: decodes a file, as was done for `pixels`.
    """
    again = decode(_with_filler(data, scan_start))
    return again is None or not np.array_equal(again, pixels)


def _with_filler(data: bytes, scan_start: int) -> bytes:
    parts, start = [data[:scan_start]], scan_start
    while start < len(data):
        # `start` is at a marker with a body; scan data follows those of a scan.
        body = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        end = _end_of_scan(data, body) if data[start + 1] == 0xDA else body
        parts.append(data[start:end])
        if data[start + 1] == 0xDA:
            parts.append(_FILLER)
        if end + 1 >= len(data) or data[end] != 0xFF or data[end + 1] == _END_OF_IMAGE:
            parts.append(data[end:])
            break
        start = end
    return b"".join(parts)


def _end_of_scan(data: bytes, start: int) -> int:
    while (start := data.find(b"\xff", start)) >= 0:
        if start + 1 < len(data) and data[start + 1] not in _INSIDE_A_SCAN:
            return start
        start += 1
    return len(data)
