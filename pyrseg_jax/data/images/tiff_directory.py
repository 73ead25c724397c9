"""Find single entries in the first directory of a TIFF file, which is also how EXIF data is written. Nothing else is read.

Source: TIFF, revision 6.0, section 2; BigTIFF has the same entries with longer numbers.
"""

import math
import struct
from typing import NamedTuple

# Size in bytes and `struct` code of each type. Type 2 is text, and 5 and 10 are fractions of two numbers.
_TYPES = {
    1: (1, "B"), 2: (1, "s"), 3: (2, "H"), 4: (4, "I"), 5: (8, "II"), 6: (1, "b"), 7: (1, "B"), 8: (2, "h"), 9: (4, "i"),
    10: (8, "ii"), 11: (4, "f"), 12: (8, "d"), 13: (4, "I"), 16: (8, "Q"), 17: (8, "q"),
}  # fmt: skip
_TEXT, _UNDEFINED = 2, 7
_MAX_DIGITS = 16


class Entry(NamedTuple):
    """An entry of a directory.

    offset: where it begins.
    size: its size in bytes, 12, or 20 in BigTIFF.
    value: the first number that it holds, or None if it holds none.
    """

    offset: int
    size: int
    value: float | None


def find_entry(tiff: bytes, tag: int) -> Entry | None:
    """Return the entry with a tag, or None if there is none or the directory is cut off."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        return _search(tiff, tag, order, tiff[2:4] in (b"+\0", b"\0+"))
    except (struct.error, OverflowError):
        return None


def upright_entry(tiff: bytes, entry: Entry, tag: int) -> bytes:
    """Return an entry for the same place that holds the number 1."""
    layout = "HHQHxxxxxx" if entry.size == 20 else "HHIHxx"
    return struct.pack(("<" if tiff[:2] == b"II" else ">") + layout, tag, 3, 1, 1)


def _search(tiff: bytes, tag: int, order: str, is_big: bool) -> Entry | None:
    (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), tiff, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), tiff, start)
    first, size = start + (8 if is_big else 2), 20 if is_big else 12
    for offset in range(first, min(first + count * size, len(tiff) - size + 1), size):
        found, kind = struct.unpack_from(order + "HH", tiff, offset)
        if found == tag:
            return Entry(offset, size, _value_of(tiff, offset, kind, order, is_big))
    return None


def _value_of(tiff: bytes, offset: int, kind: int, order: str, is_big: bool) -> float | None:
    size, code = _TYPES.get(kind, (0, ""))
    (count,) = struct.unpack_from(order + ("Q" if is_big else "I"), tiff, offset + 4)
    place = offset + (12 if is_big else 8)
    if not size or not count:
        return None
    if size * count > (8 if is_big else 4):  # too long for the entry: it holds an offset instead
        (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), tiff, place)
    if place + size > len(tiff):
        return None
    if kind == _TEXT or (kind == _UNDEFINED and tiff[place : place + 1].isdigit()):
        text = tiff[place : place + min(count, _MAX_DIGITS)].split(b"\0")[0].strip()
        return int(text) if text.isdigit() else None
    number, *divisor = struct.unpack_from(order + code, tiff, place)
    if divisor:
        return number / divisor[0] if divisor[0] else math.nan
    return number
