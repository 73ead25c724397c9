"""Curves by training step as SVG, which is sharp in print and needs no script; with one, the reader can ask for single values."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pyrseg_jax.errors import escaped
from pyrseg_jax.report.markup import text

WIDTH, HEIGHT = 640, 250
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 38
HINT = "Point at the chart, or focus it and press the arrow keys, to read single values."
MOST_POINTS = 1000  # of a curve; of more, the lowest and the highest of each group are drawn

Point = tuple[int, float]


class Chart(NamedTuple):
    """A chart of one or more curves.

    title: a heading in plain text.
    curves: label → points (step, value) in ascending order of steps.
    is_share: whether the values are fractions of 1, which are shown as percentages.
    """

    title: str
    curves: Mapping[str, Sequence[Point]]
    is_share: bool = False


def points_of(metrics: Sequence[Mapping[str, object]], name: str) -> list[Point]:
    """Return the finite values of one metric by step."""
    found = []
    for line in metrics:
        step, value = line.get("step"), line.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if isinstance(step, int) and is_number:
            found.append((step, float(value)))  # pyright: ignore[reportArgumentType]
    return found


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return at most `most` points that look like all: of each group its lowest and highest, and the first and last point."""
    if len(points) <= most:
        return list(points)
    num_groups = max(1, most // 2 - 1)
    found = {points[0], points[-1]}
    for group in range(num_groups):
        part = points[group * len(points) // num_groups : (group + 1) * len(points) // num_groups]
        found |= {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
    return sorted(found)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from below `low` to above `high`, at most about `most` of them."""
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def draw(chart: Chart, identity: str) -> str:
    """Draw a chart with its legend; "" if it has no points.

    Args:
      chart: what to draw.
      identity: a word that is unique in the page.
    """
    curves = {label: thinned(points) for label, points in chart.curves.items() if points}
    if not curves:
        return ""
    steps = [step for points in curves.values() for step, _ in points]
    values = [value for points in curves.values() for _, value in points]
    x_ticks, y_ticks = _step_ticks(max(steps)), ticks(min(values), max(values))
    last_step = max(x_ticks[-1], max(steps), 1)
    to_x = _scale(0, last_step, LEFT, WIDTH - RIGHT)
    to_y = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    lines = [_grid(to_x, to_y, x_ticks, y_ticks, chart.is_share)]
    legend = []
    for index, (label, points) in enumerate(curves.items()):
        lines.append(_curve(points, to_x, to_y, index))
        key = f'<svg class="key" viewBox="0 0 24 8" aria-hidden="true"><path class="line line-{index % 6}" d="M0 4H24"/></svg>'
        last = _say(points[-1][1], chart.is_share)
        legend.append(f"<li>{key} {text(label)}: {last} at step {points[-1][0]:,}</li>")
    return (
        f'<figure class="chart has-readout"><figcaption>{text(chart.title)}</figcaption>'
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{identity}-summary" tabindex="0" '
        f'data-curves="{text(_to_script(curves, last_step, chart.is_share))}">'
        f'<title id="{identity}-summary">{text(_summary(chart, curves))}</title>{"".join(lines)}</svg>'
        f'<output class="readout needs-script">{HINT}</output><ul class="legend">{"".join(legend)}</ul></figure>'
    )


def _to_script(curves: Mapping[str, Sequence[Point]], last_step: float, is_share: bool) -> str:
    """Return what `readout.js` needs; JSON escapes what an attribute could not hold."""
    values = {
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "last": last_step,
        "isShare": is_share,
        "curves": [[escaped(label), points] for label, points in curves.items()],
    }
    return json.dumps(values, separators=(",", ":"))


def _summary(chart: Chart, curves: Mapping[str, Sequence[Point]]) -> str:
    """Describe a chart for readers who do not see it."""
    parts = []
    for label, points in curves.items():
        first, last = points[0], points[-1]
        start = f"{label} is {_say(first[1], chart.is_share)} at step {first[0]}"
        parts.append(start if first == last else f"{start} and {_say(last[1], chart.is_share)} at step {last[0]}")
    return f"{chart.title}. " + "; ".join(parts) + "."


def _curve(points: Sequence[Point], to_x, to_y, index: int) -> str:
    style = index % 6
    if len(points) == 1:
        ((step, value),) = points
        return f'<circle class="dot dot-{style}" cx="{to_x(step):.1f}" cy="{to_y(value):.1f}" r="4"/>'
    path = "L".join(f"{to_x(step):.1f} {to_y(value):.1f}" for step, value in points)
    return f'<path class="line line-{style}" d="M{path}"/>'


def _grid(to_x, to_y, x_ticks: Sequence[float], y_ticks: Sequence[float], is_share: bool) -> str:
    parts = []
    for value in y_ticks:
        y = to_y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_tick(value, is_share)}</text>'
        )
    for step in x_ticks:
        x = to_x(step)
        parts.append(f'<path class="grid" d="M{x:.1f} {HEIGHT - BOTTOM}v5"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 19}" text-anchor="middle">{int(step):,}</text>'
        )
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">step</text>')
    return "".join(parts)


def _step_ticks(last: int) -> list[float]:
    return [tick for tick in ticks(0, max(last, 1), 7) if tick == int(tick) and tick <= max(last, 1)]


def _scale(low: float, high: float, start: float, end: float):
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _tick(value: float, is_share: bool) -> str:
    return f"{100 * value:.4g} %" if is_share else f"{value:.4g}"


def _say(value: float, is_share: bool) -> str:
    return f"{100 * value:.2f} %" if is_share else f"{value:.4g}"
