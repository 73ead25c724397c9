"""The reliability diagram as SVG: the share of right pixels by confidence, which is a diagonal line where confidences are true."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pyrseg_jax.report.markup import text

WIDTH, HEIGHT = 440, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 26, 12, 40
SPLIT = 70  # height of the strip below the diagram that shows where the pixels are
SMALLEST = 1e-4  # share of the pixels that a bin needs for a point; fewer say nothing


class Bins(NamedTuple):
    """The bins of one reliability diagram, of `reliability.summarize_confidences`.

    pixels: labeled pixels of each bin.
    confidence, accuracy: mean confidence, and share of right pixels; None for an empty bin.
    """

    pixels: Sequence[int]
    confidence: Sequence[float | None]
    accuracy: Sequence[float | None]


def draw(diagrams: Mapping[str, Bins], identity: str) -> str:
    """Draw reliability diagrams over each other; "" if none has a labeled pixel.

    Args:
      diagrams: label → bins.
      identity: a word that is unique in the page.
    """
    points = {label: _points(bins) for label, bins in diagrams.items() if any(bins.pixels)}
    if not points:
        return ""
    floor = HEIGHT - BOTTOM - SPLIT
    parts = [f'<path class="ideal" d="M{_x(0):.1f} {_y(0):.1f}L{_x(1):.1f} {_y(1):.1f}"/>']
    for value in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts += [
            f'<path class="grid" d="M{LEFT} {_y(value):.1f}H{WIDTH - RIGHT}"/>',
            f'<text class="tick" x="{LEFT - 8}" y="{_y(value) + 4:.1f}" text-anchor="end">{100 * value:.0f} %</text>',
            f'<text class="tick" x="{_x(value):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{100 * value:.0f} %</text>',
        ]
    legend = []
    for index, (label, found) in enumerate(points.items()):
        path = "L".join(f"{_x(sure):.1f} {_y(right):.1f}" for sure, right in found)
        parts.append(f'<path class="line line-{index % 6}" d="M{path}"/>')
        parts += [f'<circle class="dot dot-{index % 6}" cx="{_x(s):.1f}" cy="{_y(r):.1f}" r="3.5"/>' for s, r in found]
        key = f'<svg class="key" viewBox="0 0 24 8" aria-hidden="true"><path class="line line-{index % 6}" d="M0 4H24"/></svg>'
        legend.append(f"<li>{key} {text(label)}</li>")
    parts += _bars(diagrams[list(points)[-1]].pixels, floor + 8)
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">confidence</text>')
    return (
        '<figure class="chart reliability"><figcaption>Share of right pixels by confidence</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{identity}-summary">'
        f'<title id="{identity}-summary">{text(_summary(points))}</title>{"".join(parts)}</svg>'
        f'<ul class="legend">{"".join(legend)}<li>dashed diagonal: true confidences</li><li>bars below: share of the pixels</li>'
        "</ul></figure>"
    )


def _points(bins: Bins) -> list[tuple[float, float]]:
    total = sum(bins.pixels)
    rows = zip(bins.pixels, bins.confidence, bins.accuracy, strict=True)
    return [(c, a) for n, c, a in rows if n >= SMALLEST * total and c is not None and a is not None]


def _bars(pixels: Sequence[int], top: float) -> list[str]:
    """Draw how the pixels are spread over the bins."""
    bottom, most = HEIGHT - BOTTOM, max(pixels)
    width = (_x(1) - _x(0)) / len(pixels)
    heights = [count / most * (bottom - top) for count in pixels]
    return [
        f'<rect class="bar" x="{_x(0) + i * width + 1:.1f}" y="{bottom - height:.1f}" width="{width - 2:.1f}" '
        f'height="{height:.1f}"/>'
        for i, height in enumerate(heights)
    ]


def _summary(points: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Describe the diagram for readers who do not see it."""
    parts = []
    for label, found in points.items():
        told = ", ".join(f"{100 * right:.0f} % at {100 * sure:.0f} %" for sure, right in found)
        parts.append(f"{label}: {told}")
    return f"Share of right pixels by confidence. {'; '.join(parts)}."


def _x(confidence: float) -> float:
    return LEFT + confidence * (WIDTH - RIGHT - LEFT)


def _y(accuracy: float) -> float:
    return HEIGHT - BOTTOM - SPLIT - accuracy * (HEIGHT - BOTTOM - SPLIT - TOP)
