"""The smallest pieces of the page: escaped text, numbers that carry their exact value, and tables.

Names of classes and files come from strangers, so every text passes through `text`. A number that stands in an evaluation's JSON
carries its place there (`data-key`) and its exact value (`data-value`), so that a test can compare them.
"""

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pyrseg_jax.errors import escaped

NONE = "–"


class Cell(NamedTuple):
    """A cell of a table.

    markup: its HTML.
    value: the exact value, by which the table is sorted; None for one that is not known.
    key: the place of the value in the evaluation's JSON; () if it does not stand there.
    """

    markup: str
    value: float | int | str | None = None
    key: tuple[str | int, ...] = ()


def text(value: object) -> str:
    """Return a text as HTML, also for use inside a quoted attribute; control characters become visible escapes."""
    return html.escape(escaped(str(value)), quote=True)


def to_script(values: Any) -> str:
    """Write values as JSON that may stand inside a `<script>` element: it holds no `<`, `>` or `&`."""
    plain = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def words(value: object) -> Cell:
    """Return a cell with a text."""
    return Cell(text(value), escaped(str(value)))


def percent(value: float | None, *key: str | int) -> Cell:
    """Return a cell with a fraction of 1 as a percentage of two decimals; `key`: its place in the JSON."""
    return Cell(NONE if value is None else f"{100 * value:.2f}", value, key)


def count(value: int | None, *key: str | int) -> Cell:
    """Return a cell with a whole number, in groups of three digits; `key` as for `percent`."""
    return Cell(NONE if value is None else f"{value:,}", value, key)


def number(value: float | None, *key: str | int) -> Cell:
    """Return a cell with a number of four significant digits; `key` as for `percent`."""
    return Cell(NONE if value is None else f"{value:.4g}", value, key)


def attributes(cell: Cell) -> str:
    """Return the attributes that carry the exact value of a cell and its place in the JSON."""
    found = "" if cell.value is None else f' data-value="{text(json.dumps(cell.value))}"'
    return found + (f' data-key="{text(json.dumps(list(cell.key)))}"' if cell.key else "")


def table(
    caption: str, headings: Sequence[str], rows: Iterable[Sequence[Cell]], *, is_sortable: bool = False, kind: str = ""
) -> str:
    """Lay out a table; the first cell of each row is the row's heading.

    Args:
      caption: plain text, read aloud before the table.
      headings: plain texts of the columns.
      rows: their cells.
      is_sortable: whether the reader can sort by a column. `report.js` turns the headings into buttons.
      kind: a class for the style sheet.
    """
    names = " ".join(name for name in ("sortable" if is_sortable else "", kind) if name)
    rows = list(rows)
    kinds = [' class="word"' if isinstance(cell.value, str) else "" for cell in (rows[0] if rows else ())]
    kinds += [""] * (len(headings) - len(kinds))
    head = "".join(f'<th scope="col"{kind}>{text(name)}</th>' for name, kind in zip(headings, kinds, strict=True))
    body = "\n".join(f"<tr>{_row(cells)}</tr>" for cells in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table class="{names}">'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def section(identity: str, title: str, *parts: str) -> str:
    """Lay out a section of the page; parts that are empty are left out, and a section without parts, too."""
    found = [part for part in parts if part]
    if not found:
        return ""
    heading = f'<h2 id="{identity}-title">{text(title)}</h2>'
    body = "\n".join([heading, *found])
    return f'<section id="{identity}" aria-labelledby="{identity}-title">\n{body}\n</section>'


def paragraph(value: str, kind: str = "") -> str:
    """Lay out a plain text as a paragraph."""
    return f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>"


def details(summary: str, body: str) -> str:
    """Lay out a part that is closed until the reader opens it."""
    return f"<details><summary>{text(summary)}</summary>\n{body}\n</details>"


def swatch(color: Sequence[int]) -> str:
    """Draw a small square of a color; the text beside it names the class, so it needs no alternative."""
    red, green, blue = color
    return (
        '<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true" focusable="false">'
        f'<rect width="10" height="10" fill="#{red:02x}{green:02x}{blue:02x}"/></svg>'
    )


def _row(cells: Sequence[Cell]) -> str:
    first, *rest = cells
    return f'<th scope="row"{attributes(first)}>{first.markup}</th>' + "".join(map(_data, rest))


def _data(cell: Cell) -> str:
    kind = ' class="word"' if isinstance(cell.value, str) else ""
    return f"<td{kind}{attributes(cell)}>{cell.markup}</td>"
