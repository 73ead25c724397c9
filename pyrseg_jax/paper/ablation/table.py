"""The tables of an ablation, in Markdown."""

from pyrseg_jax.paper.ablation.results import Results
from pyrseg_jax.paper.ablation.statistics import difference_spreads, mean_shares, row_spreads
from pyrseg_jax.paper.methods import METHODS
from pyrseg_jax.paper.tables import TABLE_2A


def describe(label: str) -> str:
    """Describe a row of Table 2a, or a method with its words, in one table cell."""
    if label in TABLE_2A:
        return TABLE_2A[label].describe()
    words = label.split("+")
    is_pyramid = "pyramid" in words or "ours" in words or not any(word in METHODS for word in words)
    return f"{', '.join(word for word in words if word != 'pyramid')}, {'pyramid' if is_pyramid else 'per-pixel'}"


def paper_miou(label: str) -> float | None:
    """Return the mIoU of a row of Table 2a, in percent; None for a method, whose number in Table 1 is of other data."""
    return TABLE_2A[label].paper_miou if label in TABLE_2A else None


def format_tables(results: Results) -> str:
    """Format the labels and their differences as two Markdown tables, with the paper's numbers beside ours."""
    boundary_spreads = row_spreads(results, "boundary_miou")
    lines = [
        "| row | what is trained | seeds | mIoU | boundary mIoU | paper's mIoU | positions by level, coarse to fine |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, spread in row_spreads(results, "miou").items():
        boundary = boundary_spreads[label].text() if label in boundary_spreads else "–"
        paper = paper_miou(label)
        shares = " / ".join(f"{share:.1f}" for share in mean_shares(results[label])) or "–"
        lines.append(
            f"| {label} | {describe(label)} | {len(spread.seeds)} | {spread.text()} | {boundary} | "
            f"{'–' if paper is None else f'{paper:.2f}'} | {shares} |"
        )
    lines += ["", "| rows | mIoU | boundary mIoU | paper's mIoU |", "|---|---|---|---|"]
    boundary_differences = difference_spreads(results, "boundary_miou")
    for pair, spread in difference_spreads(results, "miou").items():
        before, after = map(paper_miou, pair)
        paper = "–" if before is None or after is None else f"{after - before:+.2f}"
        boundary = boundary_differences[pair].text("+") if pair in boundary_differences else "–"
        lines.append(f"| {pair[0]} → {pair[1]} | {spread.text('+')} | {boundary} | {paper} |")
    lines += [
        "",
        "In percent, as mean ± sample standard deviation over seeds. Differences are between runs with the same seed.",
    ]
    return "\n".join(lines) + "\n"
