"""The reliability diagram: how often pixels of each confidence are right."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyrseg_jax.reporting.plots import COLORS, empty_figure, render, tidy
from pyrseg_jax.storage.atomic import write_bytes_atomically

NAME = "reliability"


def draw_reliability(folder: Path, before: Mapping, after: Mapping | None = None) -> None:
    """Write `reliability.png` and `.pdf`.

    Args:
      folder: must exist.
      before, after: scores of `reliability.summarize_confidences` without and with temperatures; None draws the first alone.
    """
    for suffix, content in render(lambda: reliability_figure(before, after)).items():
        write_bytes_atomically(folder / f"{NAME}{suffix}", content)


def reliability_figure(before: Mapping, after: Mapping | None = None) -> Any:
    """Draw the share of right pixels by confidence, above the number of pixels; on the dashed line, confidences are true."""
    diagrams = {"as the network gives them": before} | ({} if after is None else {"with temperatures": after})
    figure = empty_figure(4.2 * len(diagrams) + 0.4, 4.6)
    axes = figure.subplots(2, len(diagrams), sharex=True, sharey="row", height_ratios=(3, 1), squeeze=False)
    for column, (name, found) in enumerate(diagrams.items()):
        above, below = axes[:, column]
        num_bins = len(found["pixels"])
        middle = (np.arange(num_bins) + 0.5) / num_bins
        accuracy, confidence = ([np.nan if v is None else v for v in found[key]] for key in ("accuracy", "confidence"))
        above.bar(middle, accuracy, 1 / num_bins, color=COLORS[1], edgecolor="white", label="share of right pixels")
        above.plot(confidence, accuracy, "o", color=COLORS[0], markersize=3.5, label="at the mean confidence")
        above.plot([0, 1], [0, 1], "--", color="0.35", linewidth=1, label="true confidences")
        ece = "–" if found["ece"] is None else f"{100 * found['ece']:.2f} %"
        above.set_title(f"{name}\nexpected calibration error {ece}", fontsize=10)
        above.set_xlim(0, 1)
        above.set_ylim(0, 1.02)
        below.bar(middle, 100 * np.array(found["pixels"]) / max(sum(found["pixels"]), 1), 1 / num_bins, color="0.6")
        below.set_xlabel("confidence")
        for part in (above, below):
            tidy(part, "y")
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("pixels, %")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure
