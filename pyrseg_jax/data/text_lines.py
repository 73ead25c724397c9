"""Read the lines of a text file that a person wrote, on any system."""

import codecs
from pathlib import Path

from pyrseg_jax.errors import UserError


def decode(data: bytes, path: Path) -> str:
    """Decode UTF-8 text, with or without the mark at its start; raise UserError naming the file and the line if it is not."""
    if _is_utf_16(data):
        raise UserError(f"{path} is not UTF-8 text (it is UTF-16): save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path} is not UTF-8 text (line {line}: {error}): save it as UTF-8") from error


def split_lines(text: str, path: Path) -> list[str]:
    """Split text into lines, which may end as on any system; raise UserError naming the file and the line if they end in two ways.

    Blank lines at the end are left out.
    """
    text = text.replace("\r\n", "\n")
    if "\n" not in text.strip("\n"):  # the line ends of old Macs, or a single line
        text = text.replace("\r", "\n")
    lines = text.rstrip(" \t\xa0\n").split("\n")
    for number, line in enumerate(lines, 1):
        if "\r" in line.strip(" \t\xa0"):
            raise UserError(
                f"{path}: line {number} holds a line end of another system (a carriage return): save the file with the same line "
                "end everywhere"
            )
    return lines


def _is_utf_16(data: bytes) -> bool:
    """Recognize the mark at the start, or else Latin letters, every other byte of which is zero."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    return len(data) >= 4 and not (any(data[:8:2]) and any(data[1:8:2]))
