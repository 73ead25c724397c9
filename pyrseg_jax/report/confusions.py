"""The section of the page about confusions: the matrix, and its largest entries, which lead to examples."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from pyrseg_jax.report.choice import most_frequent
from pyrseg_jax.report.collect import Collected
from pyrseg_jax.report.markup import Cell, count, paragraph, section, table, text, words

MOST_CLASSES = 40  # rows of the matrix that are shown
MOST_CONFUSIONS = 12
NUM_SHADES = 10  # of the style sheet


def confusion(collected: Collected) -> str:
    """Lay out the confusion matrix and its largest entries; `report.js` shows examples of the entry that is chosen."""
    values = collected.values
    if not values:
        return ""
    names, matrix = list(values["iou"]), np.array(values["confusion"], np.int64)
    labeled = matrix.sum(1)
    rows = []
    for rank, entry in enumerate(most_frequent(matrix, MOST_CONFUSIONS), 1):
        share = entry.pixels / labeled[entry.truth]
        place = ("confusion", entry.truth, entry.predicted)
        pair = f'data-truth="{entry.truth}" data-predicted="{entry.predicted}"'
        button = f'<button type="button" class="pair" {pair}>Examples</button>'
        names_of = [words(names[entry.truth]), words(names[entry.predicted])]
        rows.append(
            [
                Cell(str(rank), rank),
                *names_of,
                count(entry.pixels, *place),
                Cell(f"{100 * share:.2f}", float(share)),
                Cell(button),
            ]
        )
    headings = ["", "ground truth", "predicted as", "pixels", "share of the class, %", ""]
    shown = _shown_classes(matrix)
    note = (
        ""
        if len(shown) == len(names)
        else f" Of the {len(names)} classes, the {len(shown)} with the most wrong pixels are shown."
    )
    return section(
        "confusion",
        "Confusion",
        paragraph(
            "Each row holds the pixels of one class, in percent of the row. Click a cell, or move with the arrow keys and press "
            f"Enter, to see images with such pixels.{note}"
        ),
        _matrix(matrix, names, shown),
        '<div id="pair-examples" aria-live="polite"></div>',
        table("The most frequent confusions", headings, rows, kind="numbers")
        if rows
        else paragraph("No pixel was wrong."),
    )


def _matrix(matrix: Int64[np.ndarray, "c c"], names: Sequence[str], shown: Sequence[int]) -> str:
    head = "".join(f'<th scope="col"><span>{text(names[j])}</span></th>' for j in shown)
    rows = []
    for i in shown:
        whole = max(1, int(matrix[i].sum()))
        cells = []
        for j in shown:
            share = matrix[i, j] / whole
            label = f"{names[i]}, predicted as {names[j]}: {matrix[i, j]:,} pixels, {100 * share:.2f} % of the class"
            kind = "right" if i == j else "wrong"
            shade = min(NUM_SHADES - 1, int(np.ceil(share**0.5 * (NUM_SHADES - 1))))
            words_of = f"{100 * share:.0f}" if share >= 0.005 else ""
            cells.append(
                f'<td class="{kind} shade-{shade}" data-truth="{i}" data-predicted="{j}" title="{text(label)}" '
                f'aria-label="{text(label)}">{words_of}</td>'
            )
        rows.append(f'<tr><th scope="row">{text(names[i])}</th>{"".join(cells)}</tr>')
    about = "Confusion matrix: rows are the ground truth, columns the prediction"
    return (
        f'<div class="scroll"><table class="matrix" role="grid" aria-label="{about}"><thead><tr>'
        f'<th scope="col">truth ↓ predicted →</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _shown_classes(matrix: Int64[np.ndarray, "c c"]) -> list[int]:
    if len(matrix) <= MOST_CLASSES:
        return list(range(len(matrix)))
    wrong = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
    return sorted(int(i) for i in np.argsort(-wrong, kind="stable")[:MOST_CLASSES])
