"""Figures of an evaluation, in the style of a paper: how the levels specialize, and where the prediction is wrong."""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from pyrseg_jax.errors import reason_of
from pyrseg_jax.reporting.plots import COLORS, empty_figure, name_ticks, render, shown_names, tidy
from pyrseg_jax.storage.atomic import write_bytes_atomically

log = logging.getLogger(__name__)

LEVEL_COLORS = COLORS  # coarse → fine
MOST_CLASSES = 40  # figures by class show at most this many: those with the most pixels


def draw_analysis(folder: Path, result: Mapping) -> list[Path]:
    """Draw an evaluation, each figure as PNG and PDF, and return the paths of the PNGs.

    A figure that cannot be drawn is logged, and the others are drawn.

    Args:
      folder: must exist.
      result: a result as stored in `evaluation/SPLIT-STEP.json`. Without an analysis or a pyramid, only the confusion matrix is
        drawn.
    """
    figures = {"confusion": confusion_figure}
    if result["level_miou"] is not None and len(result["level_miou"]) > 1:
        figures |= {
            "levels_by_class": levels_by_class_figure,
            "level_by_level": level_by_level_figure,
            "boundary_and_oracles": boundary_figure,
            "unity": unity_figure,
        }
    paths = []
    for name, draw in figures.items():
        try:
            contents = render(functools.partial(draw, result))
        except Exception as error:  # whatever Matplotlib stumbles over, the result itself is good
            log.warning("the figure %s cannot be drawn (%s): the result is complete without it", name, reason_of(error))
            continue
        for suffix, content in contents.items():
            write_bytes_atomically(folder / f"{name}{suffix}", content)
        paths.append(folder / f"{name}.png")
    return paths


def _classes(result: Mapping) -> list[int]:
    """Return the classes to draw, those with the most pixels in the truth first."""
    pixels = np.asarray(result["confusion"]).sum(1)
    return [int(i) for i in np.argsort(-pixels, kind="stable")[:MOST_CLASSES] if pixels[i]]


def _names(names: list[str], classes: list[int]) -> list[str]:
    """Return the names of some classes as an axis shows them."""
    shown = shown_names(names)
    return [shown[i] for i in classes]


def levels_by_class_figure(result: Mapping):
    """Draw, per class, the IoU of each level alone minus that of the fused prediction (Fig. 3)."""
    names = list(result["iou"])
    classes = _classes(result)
    num_levels = len(result["level_miou"])
    figure = empty_figure(max(5.5, 0.42 * len(classes) + 1.2), 1.05 * num_levels + 1.4)
    rows = figure.subplots(num_levels, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for level, axes in enumerate(rows):
        values = [_minus(result["level_iou"][names[i]][level], result["iou"][names[i]]) for i in classes]
        axes.bar(range(len(classes)), values, color=LEVEL_COLORS[level % len(LEVEL_COLORS)])
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set_ylabel(f"level {level + 1}")
        tidy(axes, "y")
    name_ticks(rows[-1].xaxis, _names(names, classes), rotation=60, ha="right", rotation_mode="anchor")
    figure.supylabel("IoU of the level alone minus fused, points", fontsize=10)
    return figure


def level_by_level_figure(result: Mapping):
    """Draw the mIoU of every level on the pixels that each level decides (Table 2c)."""
    values = np.array([[np.nan if v is None else 100 * v for v in row] for row in result["level_miou"]])
    num_levels = len(values)
    figure = empty_figure(1.1 * num_levels + 1.8, 0.75 * num_levels + 1.5)
    axes = figure.subplots()
    # Each column has its own color scale, because the question is which level is best on these pixels.
    top, low = np.nanmax(values, 0, initial=-np.inf), np.nanmin(values, 0, initial=np.inf)
    axes.imshow((values - low) / np.maximum(top - low, 1e-9), cmap="Blues", vmin=-0.4, vmax=1.4, aspect="auto")
    for i, j in np.ndindex(values.shape):
        text = "–" if np.isnan(values[i, j]) else f"{values[i, j]:.1f}"
        axes.text(j, i, text, ha="center", va="center", weight="bold" if i == j else "normal")
    shares = [f"{level + 1}\n{share:.0%}" for level, share in enumerate(result["level_share"])]
    axes.set_xticks(range(num_levels), shares)
    axes.set_yticks(range(num_levels), [str(level) for level in range(1, num_levels + 1)])
    axes.set_xlabel("level that decides, and its share of positions")
    axes.set_ylabel("predicted by level alone")
    axes.set_title("mIoU, %; darkest: best in its column", fontsize=10)
    axes.tick_params(length=0)
    return figure


def boundary_figure(result: Mapping):
    """Draw the mIoU near boundaries (Table 2b) and the oracles: the gain if one of the pyramids were true."""
    bars = {
        "all pixels": result["miou"],
        f"within {result['boundary_px']} px\nof a boundary": result["boundary_miou"],
        "true unity\npyramid": result["oracle"]["true_unity_miou"],
        "true semantic\npyramid": result["oracle"]["true_semantic_miou"],
    }
    bars = {name: 100 * value for name, value in bars.items() if value is not None}
    figure = empty_figure(5.2, 3.2)
    axes = figure.subplots()
    colors = [LEVEL_COLORS[0]] * 2 + ["0.65"] * 2
    for rect, value in zip(
        axes.bar(list(bars), list(bars.values()), color=colors, width=0.6), bars.values(), strict=True
    ):
        axes.annotate(
            f"{value:.1f}",
            (rect.get_x() + rect.get_width() / 2, value),
            (0, 3),
            textcoords="offset points",
            ha="center",
        )
    axes.set_ylabel("mIoU, %")
    axes.margins(y=0.12)
    tidy(axes, "y")
    return figure


def unity_figure(result: Mapping):
    """Draw the true unit-cells by class and level, and precision and recall of the predicted ones."""
    names, classes = list(result["iou"]), _classes(result)
    cells = np.array([result["unit_cells"][names[i]] for i in classes], float)
    num_levels = cells.shape[1]
    figure = empty_figure(8.5, max(3.0, 0.22 * len(classes) + 1.3))
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    share = 100 * cells / np.maximum(cells.sum(0), 1)
    for level in range(num_levels):
        offset = (level - (num_levels - 1) / 2) * 0.8 / num_levels
        left.barh(
            np.arange(len(classes)) + offset,
            share[:, level],
            0.8 / num_levels,
            color=LEVEL_COLORS[level],
            label=f"level {level + 1}",
        )
    name_ticks(left.yaxis, _names(names, classes))
    left.invert_yaxis()
    left.set_xlabel("share of the level's true unit-cells, %")
    left.legend(frameon=False)
    tidy(left, "x")
    for name, marker in (("precision", "o"), ("recall", "s")):
        values = [np.nan if v is None else 100 * v for v in result["unity"][name]]
        right.plot(
            range(1, num_levels + 1),
            values,
            marker=marker,
            color="#0072B2" if name == "precision" else "#D55E00",
            label=name,
        )
    right.set_xticks(range(1, num_levels + 1))
    right.set_xlabel("level")
    right.set_ylabel("unit-cells, %")
    right.set_ylim(0, 103)
    right.legend(frameon=False)
    tidy(right, "y")
    return figure


def confusion_figure(result: Mapping):
    """Draw the confusion matrix: each row is a true class, in shares of its pixels."""
    names, classes = list(result["iou"]), _classes(result)
    shares = _rows_as_shares(np.asarray(result["confusion"]))[np.ix_(classes, classes)]
    side = max(3.6, 0.26 * len(classes) + 2.2)
    figure = empty_figure(side + 0.7, side)
    axes = figure.subplots()
    drawn = axes.imshow(100 * shares, cmap="magma_r", vmin=0, vmax=100)
    if len(classes) <= 15:
        for i, j in np.ndindex(shares.shape):
            if shares[i, j] >= 0.005:
                color = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", fontsize=7, color=color)
    name_ticks(axes.xaxis, _names(names, classes), rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    name_ticks(axes.yaxis, _names(names, classes), fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel(
        "true" if len(classes) == len(names) else f"true: the {len(classes)} largest of {len(names)} classes"
    )
    figure.colorbar(drawn, label="share of the true class's pixels, %", shrink=0.8)
    return figure


def _rows_as_shares(confusion: Int[np.ndarray, "c c"]) -> Float[np.ndarray, "c c"]:
    """Divide each row by its sum; a row of zeros stays zero."""
    return confusion / np.maximum(confusion.sum(1, keepdims=True), 1)


def _minus(value: float | None, other: float | None) -> float:
    """Return the difference in percentage points, NaN if a value is missing."""
    return np.nan if value is None or other is None else 100 * (value - other)
