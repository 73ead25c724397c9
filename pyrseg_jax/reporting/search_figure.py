"""The plot of a search: its history, and the score over the values of each key that varied."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pyrseg_jax.storage.atomic import write_bytes_atomically

COMPLETE_COLOR, PRUNED_COLOR, FAILED_COLOR = "#0072B2", "#E69F00", "#999999"  # Okabe and Ito's colors
BEST_COLOR = "#D55E00"
COLUMNS = 3
MAX_TICKS = 12  # choices whose names are written


class Outcome(NamedTuple):
    """A trial that has ended.

    score: its score; None if it failed.
    is_complete: whether it came to its end.
    values: the values of its keys, by key; choices as texts.
    """

    number: int
    score: float | None
    is_complete: bool
    values: Mapping[str, int | float | str]


class Axis(NamedTuple):
    """A key that varied: its name, and whether its axis is logarithmic, or its choices in order."""

    name: str
    is_log: bool = False
    choices: Sequence[str] = ()


def draw_search(
    path: Path, metric: str, is_higher_better: bool, outcomes: Sequence[Outcome], axes: Sequence[Axis]
) -> None:
    """Write a plot as PNG: the first panel shows the trials in order, the others their scores over the values of each key.

    Args:
      path: the file to write.
      metric: name of the score.
      is_higher_better: whether more of it is better.
      outcomes: the trials, of which at least one has a score.
      axes: the keys.

    Raises:
      OSError: if it cannot be written.
    """
    from matplotlib.figure import Figure  # importing it takes a second

    num_panels = 1 + len(axes)
    rows = -(-num_panels // COLUMNS)
    figure = Figure(figsize=(4.2 * min(COLUMNS, num_panels), 3.4 * rows), layout="constrained")
    panels = list(figure.subplots(rows, min(COLUMNS, num_panels), squeeze=False).flat)
    _draw_history(panels[0], metric, is_higher_better, outcomes)
    best = _best(outcomes, is_higher_better)
    for panel, axis in zip(panels[1:], axes, strict=False):
        _draw_key(panel, axis, outcomes, best)
        panel.set_ylabel(metric)
    for panel in panels[:num_panels]:
        panel.grid(color="0.9")
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    for panel in panels[num_panels:]:
        panel.remove()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    write_bytes_atomically(path, content.getvalue())


def _best(outcomes: Sequence[Outcome], is_higher_better: bool) -> Outcome | None:
    complete = [outcome for outcome in outcomes if outcome.is_complete and outcome.score is not None]
    sign = 1 if is_higher_better else -1
    return max(complete, key=lambda outcome: sign * (outcome.score or 0.0), default=None)


def _draw_history(panel: Any, metric: str, is_higher_better: bool, outcomes: Sequence[Outcome]) -> None:
    choose = max if is_higher_better else min
    best, numbers, bests = None, [], []
    for outcome in outcomes:
        if outcome.is_complete and outcome.score is not None:
            best = outcome.score if best is None else choose(best, outcome.score)
        if best is not None:
            numbers.append(outcome.number)
            bests.append(best)
    panel.step(numbers, bests, where="post", color=BEST_COLOR, label="best so far")
    _scatter(panel, outcomes, [outcome.number for outcome in outcomes])
    failed = [outcome.number for outcome in outcomes if outcome.score is None]
    if failed:
        bottom = panel.get_ylim()[0]
        panel.plot(failed, [bottom] * len(failed), "x", color=FAILED_COLOR, label="failed", clip_on=False)
        panel.set_ylim(bottom=bottom)
    panel.set_xlabel("trial")
    panel.set_ylabel(metric)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.margins(y=0.08)


def _draw_key(panel: Any, axis: Axis, outcomes: Sequence[Outcome], best: Outcome | None) -> None:
    from matplotlib.ticker import LogLocator

    places = {text: i for i, text in enumerate(axis.choices)}

    def place(outcome: Outcome) -> float:
        value = outcome.values[axis.name]
        return places[value] if isinstance(value, str) else value

    x = [place(outcome) for outcome in outcomes]
    _scatter(panel, outcomes, x)
    if best is not None:
        panel.plot(place(best), best.score, "o", markersize=12, markerfacecolor="none", color=BEST_COLOR)
    if axis.is_log:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if max(x) < 100 * min(x) else (1.0,)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("")
        panel.tick_params(axis="x", rotation=30)
    if axis.choices:
        panel.set_xlim(-0.5, len(axis.choices) - 0.5)
        shown = axis.choices[:MAX_TICKS]
        panel.set_xticks(range(len(shown)), shown, rotation=30 if max(map(len, shown)) > 8 else 0)
    panel.set_xlabel(axis.name)


def _scatter(panel: Any, outcomes: Sequence[Outcome], places: Sequence[float]) -> None:
    """Draw the trials with a score: dots for complete ones, rings for pruned ones."""
    for is_complete, name, style in (
        (True, "complete", {"color": COMPLETE_COLOR}),
        (False, "pruned, at its last score", {"color": PRUNED_COLOR, "markerfacecolor": "none"}),
    ):
        chosen = [
            (x, outcome.score)
            for x, outcome in zip(places, outcomes, strict=True)
            if outcome.score is not None and outcome.is_complete == is_complete
        ]
        if chosen:
            panel.plot(*zip(*chosen, strict=True), "o", label=name, **style)
