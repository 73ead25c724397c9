"""The plot of an ablation: every seed of every row beside the paper's numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

OURS, PAPERS = "#0072B2", "#D55E00"  # distinguishable with any colour vision (Okabe and Ito)


def draw_ablation(
    path: Path, values: Mapping[str, Sequence[float]], paper: Mapping[str, float], described: Mapping[str, str]
) -> None:
    """Write `path`.png and .pdf: per row the mIoU of each seed and their mean, and the paper's on an axis of its own.

    Args:
      path: without a suffix.
      values: row → mIoU of each seed, in percent.
      paper: row → the paper's mIoU, in percent.
      described: row → what it is.
    """
    from matplotlib.figure import Figure  # takes a second to import

    rows = list(values)
    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.6), layout="constrained")
    ours, papers = figure.subplots(1, 2, sharey=True)
    for y, row in enumerate(rows):
        ours.plot(values[row], [y] * len(values[row]), "o", color=OURS, alpha=0.45, markersize=6)
        ours.plot(sum(values[row]) / len(values[row]), y, "|", color=OURS, markersize=18, markeredgewidth=2.5)
        papers.plot(paper[row], y, "D", color=PAPERS, markersize=7)
        papers.annotate(f"{paper[row]:.2f}", (paper[row], y), (8, -4), textcoords="offset points", color=PAPERS)
    ours.set_yticks(range(len(rows)), [f"{row}  {described[row]}" for row in rows])
    ours.invert_yaxis()
    ours.set_xlabel("mIoU, %: each seed, and the mean")
    papers.set_xlabel("the paper's mIoU, %")
    papers.margins(x=0.2)
    for axes in (ours, papers):
        axes.grid(axis="x", color="0.85")
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_suffix(suffix), dpi=160)
