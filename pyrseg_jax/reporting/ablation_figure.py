"""The plot of an ablation: the mIoU of every row and seed, beside the paper's numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

# Colors of our values and of the paper's; color-blind readers can tell them apart (Okabe and Ito).
OUR_COLOR, PAPER_COLOR = "#0072B2", "#D55E00"


def draw_ablation(
    path: Path, values: Mapping[str, Sequence[float]], paper: Mapping[str, float], descriptions: Mapping[str, str]
) -> None:
    """Write a plot as PNG and PDF.

    Left, each row shows the mIoU of every seed and their mean. Right, on an axis with its own scale, it shows the paper's mIoU;
    where the paper has none for any row, that part is left out.

    Args:
      path: the file to write, without its suffix.
      values: row → mIoU of each seed, in percent.
      paper: row → the paper's mIoU, in percent, of those rows that have one.
      descriptions: row → what is trained in it.
    """
    from matplotlib.figure import Figure  # importing it takes a second

    rows = list(values)
    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.6), layout="constrained")
    panels = list(figure.subplots(1, 2 if paper else 1, sharey=True, squeeze=False)[0])
    ours = panels[0]
    for y, row in enumerate(rows):
        ours.plot(values[row], [y] * len(values[row]), "o", color=OUR_COLOR, alpha=0.45, markersize=6)
        ours.plot(sum(values[row]) / len(values[row]), y, "|", color=OUR_COLOR, markersize=18, markeredgewidth=2.5)
        if row in paper:
            panels[1].plot(paper[row], y, "D", color=PAPER_COLOR, markersize=7)
            panels[1].annotate(
                f"{paper[row]:.2f}", (paper[row], y), (8, -4), textcoords="offset points", color=PAPER_COLOR
            )
    ours.set_yticks(
        range(len(rows)), [f"{row}  {descriptions[row]}" if len(row) == 1 else descriptions[row] for row in rows]
    )
    ours.invert_yaxis()
    ours.set_xlabel("mIoU in %: each seed, and the mean")
    for papers in panels[1:]:
        papers.set_xlabel("the paper's mIoU in %")
        papers.margins(x=0.2)
    for axes in panels:
        axes.grid(axis="x", color="0.85")
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_suffix(suffix), dpi=160)
