"""The sections of the page about images: the score of each, and examples whose pyramids the reader can fuse anew."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyrseg_jax.evaluation.image_scores import ImageCounts, miou_of_images
from pyrseg_jax.report.choice import BEST, WORST, Chosen
from pyrseg_jax.report.examples import Example, Place, data_uri
from pyrseg_jax.report.markup import Cell, paragraph, section, table, text, words

MOST_ROWS = 300  # of the table of images; of more, the worst and the best are shown
NUM_BINS = 20

# Kind of map that can lie over a photograph → its name for readers.
LAYERS = {
    "fused": "prediction at this τ, by cells",
    "level": "level that decides, at this τ",
    "labels": "prediction as it was scored",
    "truth": "ground truth",
    "errors": "wrong pixels, as scored",
    "none": "photograph only",
}


def images(counts: ImageCounts | None, places: Mapping[str, Place], shown: Sequence[Example]) -> str:
    """Lay out the score of each image of the split.

    Args:
      counts: of the images; None if they were not kept.
      places: the images by their digests, as far as they were found.
      shown: the examples in the report, to which the table leads.
    """
    if counts is None:
        return ""
    score = miou_of_images(counts.counts)
    right, labeled = counts.counts[..., 0].sum(1), counts.counts[..., 2].sum(1)
    numbers = {example.digest: i for i, example in enumerate(shown)}
    rows = []
    for i in np.argsort(score, kind="stable"):
        digest = counts.digests[i]
        name = places[digest].name if digest in places else f"digest {digest}"
        link = f'<a href="#example-{numbers[digest]}">{text(name)}</a>' if digest in numbers else text(name)
        is_scored = labeled[i] > 0
        accuracy = right[i] / max(1, labeled[i])
        rows.append(
            [
                Cell(link, name),
                Cell(f"{100 * score[i]:.2f}", float(score[i])) if is_scored else words("–"),
                Cell(f"{100 * accuracy:.2f}", float(accuracy)) if is_scored else words("–"),
                Cell(f"{labeled[i]:,}", int(labeled[i])),
            ]
        )
    note = ""
    if len(rows) > MOST_ROWS:
        note = paragraph(
            f"Of {len(rows):,} images, the {MOST_ROWS // 2} worst and the {MOST_ROWS // 2} best are listed."
        )
        rows = [*rows[: MOST_ROWS // 2], *rows[-MOST_ROWS // 2 :]]
    headings = ["image", "mIoU, %", "pixel accuracy, %", "labeled pixels"]
    listing = table("Score of each image", headings, rows, is_sortable=True, kind="numbers images")
    explanation = (
        "The mIoU of an image is the mean of the IoU over the classes of its label map. The lowest come first."
    )
    return section("images", "Images", paragraph(explanation), _histogram(score[~np.isnan(score)]), note, listing)


def examples(
    shown: Sequence[Example], chosen: Mapping[str, Chosen], names: Sequence[str], scores: Mapping[str, float]
) -> str:
    """Lay out the examples; `report.js` draws the maps over the photographs.

    Args:
      shown: the examples.
      chosen: digest → why the image was chosen.
      names: of the classes.
      scores: digest → mIoU of the image.
    """
    if not shown:
        return ""
    figures = "\n".join(
        _figure(i, example, _why(chosen.get(example.digest), names), scores.get(example.digest))
        for i, example in enumerate(shown)
    )
    return section(
        "examples",
        "Examples",
        paragraph(
            "Move the slider of an image: a cell decides its region if the probability that it holds a single class is at least τ, "
            "and the levels are then fused anew from the stored pyramids. A map by cells is coarser than the scored prediction, "
            "whose probabilities are interpolated to every pixel."
        ),
        f'<div class="controls needs-script" role="group" aria-label="All examples">{_controls("all", "in all examples")}</div>',
        f'<div class="gallery">{figures}</div>',
    )


def pack(shown: Sequence[Example]) -> list[dict[str, Any]]:
    """Return what `report.js` needs of the examples."""
    return [{"name": example.name, "confusion": example.confusion, **example.packed} for example in shown]


def _figure(index: int, example: Example, why: str, score: float | None) -> str:
    height, width = example.size
    scored = "" if score is None else f' · mIoU <span data-value="{score!r}">{100 * score:.2f}</span> %'
    return (
        f'<figure class="example" id="example-{index}" data-example="{index}">'
        f'<figcaption><strong>{text(example.name)}</strong><br><span class="why">{text(why)}{scored}</span></figcaption>'
        f'<div class="stage"><img src="{data_uri(example.photograph)}" width="{width}" height="{height}" '
        f'alt="{text(f"Photograph {example.name}")}"><canvas role="img" aria-label="Map over the photograph"></canvas></div>'
        f'<div class="controls needs-script">{_controls(str(index), f"of {example.name}")}</div>'
        '<output class="shares"></output><ul class="legend classes-shown"></ul><output class="pixel"></output></figure>'
    )


def _controls(identity: str, of: str) -> str:
    options = "".join(f'<option value="{key}">{text(name)}</option>' for key, name in LAYERS.items())
    return (
        f'<label class="tau">τ <output class="tau-value"></output>'
        f'<input type="range" class="tau-slider" id="tau-{identity}" min="0" step="1" '
        f'aria-label="{text(f"Threshold τ {of}")}"></label>'
        f'<label>show <select class="layer" aria-label="{text(f"Map {of}")}">{options}</select></label>'
        f'<label>opacity <input type="range" class="opacity" min="0" max="100" step="5" value="65" aria-label="'
        f'{text(f"Opacity of the map {of}")}"></label>'
    )


def _why(chosen: Chosen | None, names: Sequence[str]) -> str:
    if chosen is None:
        return "an image of the split"
    if isinstance(chosen.why, str):
        return {WORST: "among the worst", BEST: "among the best"}[chosen.why]
    return f"chosen for {names[chosen.why.truth]} predicted as {names[chosen.why.predicted]}"


def _histogram(score: np.ndarray) -> str:
    """Draw how many images have which score."""
    if not len(score):
        return ""
    numbers, _ = np.histogram(score, NUM_BINS, (0, 1))
    bars = []
    for i, found in enumerate(numbers):
        height = 90 * found / numbers.max()
        bars.append(
            f'<rect class="bar" x="{10 + 30 * i}" y="{100 - height:.1f}" width="28" height="{height:.1f}"/>'
            + (
                f'<text class="tick" x="{24 + 30 * i}" y="{96 - height:.1f}" text-anchor="middle">{found}</text>'
                if found
                else ""
            )
        )
    ticks = "".join(
        f'<text class="tick" x="{10 + 6 * percent}" y="116" text-anchor="middle">{percent} %</text>'
        for percent in range(0, 101, 20)
    )
    low, middle, high = (f"{100 * value:.2f} %" for value in (score.min(), np.median(score), score.max()))
    summary = text(f"Number of images by mIoU: {len(score)} images, from {low} to {high}, median {middle}.")
    return (
        f'<figure class="chart"><figcaption>{summary}</figcaption>'
        f'<svg viewBox="-4 -14 640 136" role="img" aria-label="{summary}">'
        f'{"".join(bars)}<path class="axis" d="M10 100H610"/>{ticks}</svg></figure>'
    )
