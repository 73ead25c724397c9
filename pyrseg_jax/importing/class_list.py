"""Read a list of classes as label tools and data sets write it: names, with or without a color for each."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pyrseg_jax.data.label_space import find_problem
from pyrseg_jax.data.text_lines import decode, split_lines
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.names import comparable
from pyrseg_jax.storage.regular_file import read_regular_file, unreadable

MAX_FILE_BYTES = 2**22
FORMS = "NAME, NAME R G B, R G B NAME, NAME,R,G,B, NAME:R,G,B, or NAME,#RRGGBB"

Color = tuple[int, int, int]


class ClassList(NamedTuple):
    """A list of classes from a file.

    path: the file, for messages.
    names: the names, in order.
    colors: the color of each, or None where the file gives none.
    first: the number of the first class in label maps; the others count up from it.
    """

    path: Path
    names: tuple[str, ...]
    colors: tuple[Color, ...] | None
    first: int = 0


def read_class_list(path: Path) -> ClassList:
    """Read a list of classes: a text file with one class per line, or a CSV file with a header.

    Lines that begin with `#` are comments, except `#RRGGBB`. The forms of a line are `FORMS`; what follows a second colon
    (as in CVAT's `labelmap.txt`) is passed over. If the lines are numbered from 0 or 1, in front of the names or in a column of a
    CSV file, the numbers are removed from the names.

    Raises:
      UserError: naming the file and the line, if it cannot be read or a line is none of these.
    """
    try:
        data = read_regular_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    numbered = [(i, line.strip()) for i, line in enumerate(split_lines(decode(data, path), path), 1)]
    lines = [(i, line) for i, line in numbered if line and not re.match(r"#(?![0-9A-Fa-f]{6}\b)", line)]
    if not lines:
        raise UserError(f"{path} names no class: write one class per line, as {FORMS}")
    columns = _header_columns(lines[0][1])
    if columns is not None:
        found = [_read_row(line, columns, f"{path}: line {i}") for i, line in lines[1:]]
        lines = lines[1:]
    else:
        found = [_read_line(line, f"{path}: line {i}") for i, line in lines]
    if not found:
        raise UserError(f"{path} names no class: only its header is there")
    with_color = [color is not None for _, color in found]
    if any(with_color) and not all(with_color):
        number, line = lines[with_color.index(False)]
        raise UserError(f"{path}: line {number} ({line!r}) has no color, but others have: give each class one, or none")
    names = tuple(name for name, _ in found)
    numbered_rows = [line for _, line in lines] if columns is not None else names
    names, first = _without_numbers(names, numbered_rows, None if columns is None else columns[0])
    check_names(names, [f"{path}: line {number}" for number, _ in lines])
    colors = tuple(color for _, color in found if color is not None)
    _check_colors(colors, names, path)
    return ClassList(path, names, colors or None, first)


def _without_numbers(names: tuple[str, ...], lines: Sequence[str], column: int | None) -> tuple[tuple[str, ...], int]:
    """Return the names without numbers that count them, and the first of these numbers.

    Args:
      names: the names; without a header, they may still have their numbers in front.
      lines: the lines.
      column: the column of the names in a CSV file with a header, or None.
    """
    pattern = r"(\d{1,5})\s*[\s:;,.)=-]\s*(\D.*)" if column is None else r"(\d{1,5})\s*[,;\t](.*)"
    found = [re.fullmatch(pattern, line) for line in lines]
    numbers = [int(match[1]) for match in found if match is not None]
    if column == 0 or len(names) < 2 or len(numbers) < len(names) or numbers[0] > 1:
        return names, 0
    if numbers != list(range(numbers[0], numbers[0] + len(names))):
        return names, 0
    return (tuple(match[2].strip() for match in found if match) if column is None else names), numbers[0]


def check_names(names: Sequence[str], places: Sequence[str]) -> None:
    """Raise UserError, naming the place, for a name that is empty, repeated, or no plain text."""
    seen: dict[str, str] = {}
    for name, place in zip(names, places, strict=True):
        problem = "is empty" if not name.strip() else find_problem(name)
        if problem:
            raise UserError(f"{place}: the name of the class {problem}: expected plain text of at most 200 characters")
        if comparable(name) in seen:
            raise UserError(f"{place} repeats the class {name!r} of {seen[comparable(name)]}: class names must differ")
        seen[comparable(name)] = place


def _check_colors(colors: Sequence[Color], names: Sequence[str], path: Path) -> None:
    seen: dict[Color, str] = {}
    for color, name in zip(colors, names, strict=False):
        if color in seen:
            raise UserError(
                f"{path} gives the color {' '.join(map(str, color))} to {seen[color]!r} and to {name!r}: a color can "
                "mean only one class"
            )
        seen[color] = name


def _header_columns(line: str) -> tuple[int, Sequence[int]] | None:
    """Return the columns of the name and of the color in a CSV file, given its first line; None if this is not a header."""
    words = [word.strip().lower() for word in re.split(r"[,;\t]", line)]
    name = next(
        (i for i, word in enumerate(words) if word in ("name", "class", "label", "class_name", "label_name")), None
    )
    if name is None or len(words) < 2:
        return None
    channels = [
        next((i for i, word in enumerate(words) if word in (channel, channel[0])), None)
        for channel in ("red", "green", "blue")
    ]
    found = [i for i in channels if i is not None]
    if not found:
        found = [i for i, word in enumerate(words) if word in ("color", "colour", "hex")]
    return name, found


def _read_row(line: str, columns: tuple[int, Sequence[int]], place: str) -> tuple[str, Color | None]:
    cells = [cell.strip() for cell in next(csv.reader([re.sub(r"[;\t]", ",", line)]))]
    name, channels = columns
    if len(cells) <= max(name, *channels, 0):
        raise UserError(f"{place} has {len(cells)} cells ({line!r}): the header names more")
    return cells[name], _read_color([cells[i] for i in channels], place) if channels else None


def _read_line(line: str, place: str) -> tuple[str, Color | None]:
    if found := re.fullmatch(r"(.*?):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?::.*)?", line):
        return found[1].strip(), _read_color(found.groups()[1:], place)
    if found := re.fullmatch(r"(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;]+(\D.*)", line):
        return found[4].strip(), _read_color(found.groups()[:3], place)
    if found := re.fullmatch(r"(.*?)[\s,;:]+(\d+)[\s,;]+(\d+)[\s,;]+(\d+)", line):
        return found[1].strip(" ,;:"), _read_color(found.groups()[1:], place)
    if found := re.fullmatch(r"(.*?)[\s,;:]*(#[0-9A-Fa-f]{6})", line):
        return found[1].strip(), _read_color([found[2]], place)
    if found := re.fullmatch(r"(#[0-9A-Fa-f]{6})[\s,;:]+(.*)", line):
        return found[2].strip(), _read_color([found[1]], place)
    return line, None


def _read_color(cells: Sequence[str], place: str) -> Color:
    if len(cells) == 1 and re.fullmatch(r"#?[0-9A-Fa-f]{6}", cells[0]):
        number = int(cells[0].lstrip("#"), 16)
        return number >> 16, number >> 8 & 255, number & 255
    values = [int(cell) if re.fullmatch(r"\d{1,9}", cell) else -1 for cell in cells]
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise UserError(
            f"{place} has the color {', '.join(cells)}: expected three whole numbers from 0 to 255, or #RRGGBB"
        )
    return values[0], values[1], values[2]
