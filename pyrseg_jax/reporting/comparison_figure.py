"""The plot of a comparison: the scores of experiments, their differences from the first one, and the differences of each class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyrseg_jax.reporting.comparison_table import SCORES
from pyrseg_jax.reporting.plots import COLORS, empty_figure, name_ticks, shown_names, tidy

# The colors of experiments: neighbors in the palette are similar, so that it is taken in another order.
ORDER = (0, 3, 5, 2, 4, 1)
MARKERS = "osDv^P"
WIDTH = 11.0  # inches
CLASSES_HEIGHT = 12.0  # inches; classes beyond it are left out
MOST_CLASSES = 40


def comparison_figure(comparison: Mapping):
    """Draw a comparison; the argument is the content of `comparison.json`.

    Points are scores, bars their intervals, and gray ticks the runs of an experiment with several seeds. The rows at the top show
    the scores and their differences from the first experiment. Below are the differences of each class, common classes first; for a
    single experiment, the IoU of each class. Where there is not enough room, these are the classes with the largest differences,
    and the rarest.
    """
    experiments, differences = comparison["experiments"], comparison["differences"]
    keys = [key for key in SCORES if any(e["scores"][key]["value"] is not None for e in experiments)]
    entries = differences or experiments
    row_height = 0.16 + 0.09 * len(entries)
    classes = _choose_classes(comparison, int(CLASSES_HEIGHT / row_height))
    heights = [0.26 * len(rows) + 1.0 for rows in (experiments, differences) if rows]
    heights += [row_height * len(classes) + 1.3]
    figure = empty_figure(WIDTH, sum(heights))
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    names = [f"{i} {name}" for i, name in enumerate(shown_names([e["label"] for e in experiments], "run", 26), 1)]
    _draw_scores(parts[0], keys, experiments, names, "%", _explain_marks(comparison))
    if differences:
        _draw_scores(parts[1], keys, differences, names, "points", f"Differences from {names[0]}")
    _draw_classes(parts[-1], comparison, classes, names)
    return figure


def _explain_marks(comparison: Mapping) -> str:
    """Say what is drawn beside the points."""
    experiments = comparison["experiments"]
    marks = []
    if any(e["scores"]["miou"]["low"] is not None for e in experiments):
        marks.append(f"bars: {100 * comparison['confidence']:.0f} % intervals over the images")
    if any(e["joined"] == "seeds" for e in experiments):
        marks.append("gray ticks: single seeds")
    return "; ".join(["Scores", *marks])


def _title(part: Any, text: str) -> None:
    part.suptitle(text, x=0.01, ha="left", fontsize=10, weight="bold", parse_math=False)


def _choose_classes(comparison: Mapping, most: int) -> list[str]:
    """Choose at most `most` classes, those with the most pixels first."""
    classes, entries = comparison["classes"], comparison["differences"] or comparison["experiments"]
    order = sorted(classes, key=lambda name: -classes[name]["pixels"])
    order = [name for name in order if any(e["iou"][name]["value"] is not None for e in entries)]
    most = min(most, MOST_CLASSES)
    if len(order) <= most:
        return order
    rare = comparison["rarest"]
    largest = {name: max(abs(e["iou"][name]["value"] or 0) for e in entries) for name in order}
    by_size = sorted((name for name in order if name not in rare), key=lambda name: -largest[name])
    chosen = {*rare, *by_size[: most - len(rare)]}
    return [name for name in order if name in chosen]


def _draw_scores(
    part: Any, keys: Sequence[str], entries: Sequence[Mapping], names: Sequence[str], unit: str, title: str
) -> None:
    """Draw a panel for each score, with a row for each experiment; `names` are those of all experiments."""
    first = len(names) - len(entries)  # differences begin with the second experiment
    _title(part, title)
    panels = part.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for key, axes in zip(keys, panels, strict=True):
        for y, entry in enumerate(entries):
            _draw_value(axes, entry["scores"][key], y, first + y, 6)
        if first:
            axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set_xlabel(f"{SCORES[key]}, {unit}")
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="y", length=0)
        tidy(axes, "x")
    name_ticks(panels[0].yaxis, names[first:])
    panels[0].set_ylim(len(entries) - 0.4, -0.6)


def _draw_classes(part: Any, comparison: Mapping, classes: Sequence[str], names: Sequence[str]) -> None:
    """Draw a row for each class, and in it a point for each experiment."""
    differences = comparison["differences"]
    entries, first = (differences, 1) if differences else (comparison["experiments"], 0)
    axes = part.subplots()
    for y, name in enumerate(classes):
        if y % 2:
            axes.axhspan(y - 0.5, y + 0.5, color="0.96", linewidth=0)
        for i, entry in enumerate(entries):
            offset = 0.75 * ((i + 0.5) / len(entries) - 0.5)
            _draw_value(axes, entry["iou"][name], y + offset, first + i, 4)
    if differences:
        axes.axvline(0, color="0.3", linewidth=0.8)
    all_names = list(comparison["classes"])
    shown = dict(zip(all_names, shown_names(all_names), strict=True))
    rare = comparison["rarest"]
    name_ticks(axes.yaxis, [shown[name] + (" (rare)" if name in rare else "") for name in classes], fontsize=8)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    title = f"IoU of each class, difference from {names[0]}" if differences else "IoU of each class"
    if len(classes) < len(all_names):
        title += f"; {len(classes)} of {len(all_names)} classes: the rarest, and those with the largest "
        title += "differences" if differences else "IoU"
    _title(part, title)
    axes.set_xlabel("IoU, points" if differences else "IoU, %")
    axes.tick_params(axis="y", length=0)
    tidy(axes, "x")
    if len(entries) > 1:
        handles = [_draw_legend_mark(axes, first + i, names[first + i]) for i in range(len(entries))]
        part.legend(handles=handles, loc="outside lower center", ncols=min(3, len(entries)), frameon=False, fontsize=8)


def _draw_legend_mark(axes: Any, index: int, label: str) -> Any:
    """Return the entry of an experiment in the legend."""
    color, marker = _style(index)
    return axes.plot([], [], marker, color=color, markersize=4, label=label)[0]


def _style(index: int) -> tuple[str, str]:
    """Return the color and the marker of an experiment."""
    return COLORS[ORDER[index % len(ORDER)]], MARKERS[index // len(ORDER) % len(MARKERS)]


def _draw_value(axes: Any, entry: Mapping, y: float, index: int, size: float) -> None:
    """Draw a score with its interval and the runs that it averages. Without a score, draw nothing."""
    if entry["value"] is None:
        return
    color, marker = _style(index)
    runs = [100 * value for value in entry.get("runs", ()) if value is not None]
    axes.plot(runs, np.full(len(runs), y), "|", color="0.45", markersize=size + 3)
    if entry["low"] is not None:
        axes.plot([100 * entry["low"], 100 * entry["high"]], [y, y], color=color, linewidth=size / 3)
    axes.plot(100 * entry["value"], y, marker, color=color, markersize=size)
