"""The table of the README: which methods of Table 1 run here, and on what; `python -m pyrseg_jax.paper.table_1` writes it."""

from pathlib import Path

from pyrseg_jax.paper.methods import METHODS
from pyrseg_jax.paper.tables import TABLE_1, UNKNOWN, Published
from pyrseg_jax.storage.atomic import write_atomically

README = Path(__file__).parents[2] / "README.md"
START, END = "<!-- table-1:start", "<!-- table-1:end -->"
MARKER = f"{START} (written by `python -m pyrseg_jax.paper.table_1`) -->"
# Columns: the words beside a method's own, and the family of the backbone.
COLUMNS = {"ResNet-101": ("resnet101", "ResNet"), "HRNet-W48": ("", "HRNet")}


def markdown() -> str:
    """Return the table: the rows of Table 1, then the methods that the paper does not compare with."""
    lines = [
        "| method | word | ResNet-101 | with our pyramid | HRNet-W48 | with our pyramid | imports weights of | published mIoU, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(row.method, row.name + (f" ({row.venue})" if row.venue else ""), row) for row in TABLE_1]
    others = [word for word in METHODS if not METHODS[word].rows(word)]
    lines += [_row(word, METHODS[word].title, None) for word in others]
    return "\n".join(lines)


def _row(word: str, title: str, row: Published | None) -> str:
    method = METHODS[word]
    cells = [title, f"`{word}`", *_cells(word)]
    weights = [f"{', '.join(found)} ({family})" for family, found in method.weights.items() if found]
    cells.append("; ".join(weights) or "–")
    cells.append(_published(row) if row is not None else method.elsewhere or "–")
    return f"| {' | '.join(cells)} |"


def _cells(word: str) -> list[str]:
    """Return whether the method runs on each backbone, per pixel and with the pyramid."""
    per_pixel = "–" if word == "ours" else "runs"  # the paper's method always predicts a pyramid
    on_resnet = ["–", "–"] if word == "hrnet" else [per_pixel, "runs"]
    return [*on_resnet, per_pixel, "runs"]


def _published(row: Published) -> str:
    """Return the published scores of a row with what a reader must know to compare with them."""
    notes = [row.backbone, "" if row.protocol == UNKNOWN else row.protocol, row.note]
    return f"{row.describe_scores()} ({'; '.join(note for note in notes if note)})"


def updated(text: str) -> str:
    """Return the text of the README with the current table between its markers."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{MARKER}\n\n{markdown()}\n\n{END}{after}"


if __name__ == "__main__":
    write_atomically(README, updated(README.read_text(encoding="utf-8")))
