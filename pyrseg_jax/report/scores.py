"""The sections of the page about scores: the head, the curves, the classes and the levels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyrseg_jax.report import curves
from pyrseg_jax.report.collect import Collected, curve_of_results
from pyrseg_jax.report.curves import Chart, points_of
from pyrseg_jax.report.markup import (
    Cell,
    attributes,
    count,
    details,
    number,
    paragraph,
    percent,
    section,
    swatch,
    table,
    text,
    words,
)
from pyrseg_jax.reporting.palette import colors_of, level_colors

# Heading → key of the result.
MAIN = {
    "mIoU": "miou",
    "pixel accuracy": "pixel_accuracy",
    "mean accuracy": "mean_accuracy",
    "mIoU near boundaries": "boundary_miou",
    "mean Dice (F1)": "mean_dice",
    "frequency-weighted IoU": "frequency_weighted_iou",
    "mIoU per image": "image_miou",
    "best constant mIoU": "best_constant_miou",
}
CLASS_COLUMNS = {
    "IoU": "iou",
    "accuracy (recall)": "recall",
    "precision": "precision",
    "Dice (F1)": "f1",
    "IoU per image": "image_iou",
}


def head(collected: Collected) -> str:
    """Lay out the main scores, and what they were computed from."""
    values = collected.values
    if not values:
        return section(
            "summary",
            "Scores",
            paragraph(
                "This run has no evaluation yet: `pyrseg evaluate` makes one, and the report then shows its scores."
            ),
        )
    cells = {label: percent(values.get(key), key) for label, key in MAIN.items() if values.get(key) is not None}
    if values.get("loss") is not None:
        cells["validation loss"] = number(values["loss"], "loss")
    scores = "".join(
        f'<div class="score"><dt>{text(label)}</dt><dd{attributes(cell)}>{cell.markup}'
        f"{'' if 'loss' in label else ' %'}</dd></div>"
        for label, cell in cells.items()
    )
    data, protocol = values.get("data") or {}, values.get("protocol", {})
    about = [
        f"step {values['step']:,}",
        f"{values['images']:,} images" + (f" of the split {data['split']} of {data['name']}" if data else ""),
        f"protocol {protocol.get('name', 'of an earlier version')}",
        f"τ = {protocol.get('threshold', '?')}",
    ]
    return section(
        "summary", "Scores", f'<dl class="scores">{scores}</dl>', paragraph("Computed at " + "; ".join(about) + ".")
    )


def charts(collected: Collected) -> str:
    """Draw the curves of the training, and list the evaluations."""
    metrics = collected.metrics
    levels = range(1, 1 + len(collected.config.model.strides))
    drawn = [
        Chart("Loss", {"training": points_of(metrics, "loss"), "validation": points_of(metrics, "validation_loss")}),
        Chart("mIoU", {collected.run.path.stem.rpartition("-")[0]: curve_of_results(collected, "miou")}, True)
        if collected.run
        else Chart("mIoU", {}),
        Chart("Learning rate", {"learning rate": points_of(metrics, "learning_rate")}),
        Chart(
            "Loss of each level of the semantic pyramid",
            {f"level {i}": points_of(metrics, f"semantic_{i}") for i in levels},
        ),
        Chart(
            "Loss of each level of the unity pyramid", {f"level {i}": points_of(metrics, f"unity_{i}") for i in levels}
        ),
        Chart("Images per second", {"images per second": points_of(metrics, "images_per_second")}),
    ]
    figures = "".join(curves.draw(chart, f"chart-{i}") for i, chart in enumerate(drawn))
    listing = _list_results(collected)
    return section("curves", "Training", f'<div class="charts">{figures}</div>' if figures else "", listing)


def classes(collected: Collected) -> str:
    """Lay out the scores of each class."""
    values = collected.values
    if not values:
        return ""
    names, colors = list(values["iou"]), colors_of(collected.label_space).tolist()
    columns = {heading: key for heading, key in CLASS_COLUMNS.items() if isinstance(values.get(key), Mapping)}
    pixels = np.array(values["confusion"], np.int64).sum(1)
    total = max(1, int(pixels.sum()))
    rows = []
    for index, name in enumerate(names):
        color = swatch(colors[index]) if len(colors) == len(names) else ""
        scores = [percent(values[key].get(name), key, name) for key in columns.values()]
        share = Cell(f"{100 * pixels[index] / total:.2f}", float(pixels[index] / total))
        rows.append([Cell(f"{color} {text(name)}", name), *scores, count(int(pixels[index])), share])
    headings = ["class", *columns, "labeled pixels", "share of them"]
    return section(
        "classes",
        "Classes",
        paragraph("All scores are percentages; – marks a class without a pixel."),
        table("Scores of each class", headings, rows, is_sortable=True, kind="numbers"),
    )


def levels(collected: Collected) -> str:
    """Lay out how the levels of the pyramid were used, and their analysis if there is one."""
    values = collected.values
    shares = values.get("level_share") or []
    if len(shares) < 2:
        return ""
    strides = collected.config.model.strides[-len(shares) :]
    colors = level_colors(len(shares)).tolist()
    names = [f"{swatch(colors[i])} {i + 1} (stride {stride})" for i, stride in enumerate(strides)]
    rows = [[Cell(name, i), percent(shares[i], "level_share", i)] for i, name in enumerate(names)]
    headings = ["level", "share of positions that it decides, %"]
    unity = values.get("unity") or {}
    for kind, column in unity.items():
        headings.append(f"unit-cells found, {kind}, %")
        for i, row in enumerate(rows):
            row.append(percent(column[i], "unity", kind, i) if i < len(column) else words("–"))
    parts = [table("Use of the levels, coarse to fine", headings, rows, kind="numbers")]
    if values.get("level_miou"):
        matrix = values["level_miou"]
        body = [
            [Cell(names[i], i), *(percent(value, "level_miou", i, j) for j, value in enumerate(row))]
            for i, row in enumerate(matrix)
        ]
        columns = ["level", *(f"decided by {j + 1}" for j in range(len(matrix)))]
        parts.append(
            table("mIoU of each level alone, on the pixels that each level decides", columns, body, kind="numbers")
        )
    oracle = values.get("oracle")
    if oracle:
        rows = [
            [words("with the true unity pyramid"), percent(oracle["true_unity_miou"], "oracle", "true_unity_miou")],
            [
                words("with the true semantic pyramid"),
                percent(oracle["true_semantic_miou"], "oracle", "true_semantic_miou"),
            ],
        ]
        parts.append(table("mIoU with a part of the truth", ["oracle", "mIoU, %"], rows, kind="numbers"))
    return section("levels", "Levels of the pyramid", *parts)


def _list_results(collected: Collected) -> str:
    """List all evaluations of the run; the numbers of the chosen one stand in the head already."""
    rows = []
    for result in collected.results:
        values: dict[str, Any] = result.values
        scores = [values.get(key) for key in ("miou", "pixel_accuracy", "boundary_miou", "image_miou")]
        cells = [Cell("–" if value is None else f"{100 * value:.2f}", value) for value in scores]
        protocol = values["protocol"].get("name", "–")
        rows.append([words(result.name), count(values["step"]), words(protocol), count(values["images"]), *cells])
    headings = [
        "evaluation",
        "step",
        "protocol",
        "images",
        "mIoU",
        "pixel accuracy",
        "mIoU near boundaries",
        "mIoU per image",
    ]
    if not rows:
        return ""
    return details(
        f"All {len(rows)} evaluations", table("Evaluations", headings, rows, is_sortable=True, kind="numbers")
    )
