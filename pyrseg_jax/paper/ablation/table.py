"""The tables of an ablation, in Markdown."""

from pyrseg_jax.paper.ablation.results import Results
from pyrseg_jax.paper.ablation.statistics import difference_spreads, row_spreads
from pyrseg_jax.paper.tables import TABLE_2A


def format_tables(results: Results) -> str:
    """Format the rows and their differences as two Markdown tables, with the paper's numbers beside ours."""
    boundary_spreads = row_spreads(results, "boundary_miou")
    lines = [
        "| row | context, representation, procedure | seeds | mIoU | boundary mIoU | paper's mIoU |",
        "|---|---|---|---|---|---|",
    ]
    for row, spread in row_spreads(results, "miou").items():
        boundary = boundary_spreads[row].text() if row in boundary_spreads else "–"
        lines.append(
            f"| {row} | {TABLE_2A[row].describe()} | {len(spread.seeds)} | {spread.text()} | "
            f"{boundary} | {TABLE_2A[row].paper_miou:.2f} |"
        )
    lines += ["", "| rows | mIoU | boundary mIoU | paper's mIoU |", "|---|---|---|---|"]
    boundary_differences = difference_spreads(results, "boundary_miou")
    for pair, spread in difference_spreads(results, "miou").items():
        paper = TABLE_2A[pair[1]].paper_miou - TABLE_2A[pair[0]].paper_miou
        boundary = boundary_differences[pair].text("+") if pair in boundary_differences else "–"
        lines.append(f"| {pair[0]} → {pair[1]} | {spread.text('+')} | {boundary} | {paper:+.2f} |")
    lines += [
        "",
        "In percent, as mean ± sample standard deviation over seeds. Differences are between runs with the same seed.",
    ]
    return "\n".join(lines) + "\n"
