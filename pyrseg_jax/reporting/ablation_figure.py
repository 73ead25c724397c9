"""The plot of an ablation: the mIoU of every row and seed, beside the paper's numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

# Colors of our values and of the paper's; color-blind readers can tell them apart (Okabe and Ito).
OUR_COLOR, PAPER_COLOR = "#0072B2", "#D55E00"


def draw_ablation(
    path: Path, values: Mapping[str, Sequence[float]], paper: Mapping[str, float], descriptions: Mapping[str, str]
) -> None:
    """Write a plot as PNG and PDF.

    Left, each row shows the mIoU of every seed and their mean. Right, on an axis with its own scale, it shows the paper's mIoU.

    Args:
      path: the file to write, without its suffix.
      values: row → mIoU of each seed, in percent.
      paper: row → the paper's mIoU, in percent.
      descriptions: row → what is trained in it.
    """
    from matplotlib.figure import Figure  # importing it takes a second

    rows = list(values)
    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.6), layout="constrained")
    ours, papers = figure.subplots(1, 2, sharey=True)
    for y, row in enumerate(rows):
        ours.plot(values[row], [y] * len(values[row]), "o", color=OUR_COLOR, alpha=0.45, markersize=6)
        ours.plot(sum(values[row]) / len(values[row]), y, "|", color=OUR_COLOR, markersize=18, markeredgewidth=2.5)
        papers.plot(paper[row], y, "D", color=PAPER_COLOR, markersize=7)
        papers.annotate(f"{paper[row]:.2f}", (paper[row], y), (8, -4), textcoords="offset points", color=PAPER_COLOR)
    ours.set_yticks(range(len(rows)), [f"{row}  {descriptions[row]}" for row in rows])
    ours.invert_yaxis()
    ours.set_xlabel("mIoU in %: each seed, and the mean")
    papers.set_xlabel("the paper's mIoU in %")
    papers.margins(x=0.2)
    for axes in (ours, papers):
        axes.grid(axis="x", color="0.85")
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_suffix(suffix), dpi=160)
