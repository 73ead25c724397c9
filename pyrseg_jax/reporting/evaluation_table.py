"""An evaluation as text for a terminal: the scores of each class, their means, and the analysis of the pyramid."""

from pyrseg_jax.errors import escaped


def print_table(result: dict) -> None:
    """Print the table of a result on standard output at once, so that it is there whatever happens next.

    Raises:
      OSError: if standard output is closed or full.
    """
    print(evaluation_table(result), flush=True)


# Columns of the classes: heading → key of the result.
COLUMNS = {"IoU": "iou", "Dice": "dice", "precision": "precision", "recall": "recall", "IoU per image": "image_iou"}


MOST_CLASSES = 255  # lines of classes; of more, those with the most labeled pixels are shown


def evaluation_table(result: dict) -> str:
    """Lay out a result for a terminal: the scores of each class, then the means."""
    shown = _shown(result)
    names = [escaped(name) for name in shown]
    width = max(map(len, (*names, "class")))
    lines = [f"{'class':<{width}}" + "".join(f"  {heading:>{_width(heading)}}" for heading in COLUMNS)]
    for name, own in zip(names, shown, strict=True):
        cells = (
            "absent" if key == "iou" and result[key][own] is None else _percent(result[key][own])
            for key in COLUMNS.values()
        )
        lines.append(
            f"{name:<{width}}" + "".join(f"  {cell:>{_width(h)}}" for h, cell in zip(COLUMNS, cells, strict=True))
        )
    if num_more := len(result["iou"]) - len(shown):
        lines.append(f"… and {num_more} classes with fewer pixels, which the result's file lists")
    shares = ", ".join(f"{100 * share:.1f} %" for share in result["level_share"])
    lines += [
        "",
        f"mIoU {_percent(result['miou'])} over the {result['classes_averaged']} classes present "
        f"({_percent(result['miou_all_classes'])} over all {len(result['iou'])}); "
        f"the best constant prediction has {_percent(result['best_constant_miou'])}",
        f"pixel accuracy {_percent(result['pixel_accuracy'])}, mean accuracy {_percent(result['mean_accuracy'])}; "
        f"within {result['boundary_px']} px of a boundary mIoU {_percent(result['boundary_miou'])}",
        f"mean Dice (F1) {_percent(result['mean_dice'])}, mean precision {_percent(result['mean_precision'])}, "
        f"frequency-weighted IoU {_percent(result['frequency_weighted_iou'])}",
        f"mIoU per image {_percent(result['image_miou'])}, averaged over each class's images first "
        f"{_percent(result['class_image_miou'])}",
        f"share of positions that each level decides, coarse to fine: {shares}; "
        f"{result['cells_per_image']:.0f} cells for {result['pixels_per_image']:.0f} pixels an image",
    ]
    if result["level_miou"] is not None and len(result["level_miou"]) > 1:
        lines += ["", *_analysis_lines(result)]
    return "\n".join(lines)


def _shown(result: dict) -> list[str]:
    """Return the names of the classes to show, in the order of the data set."""
    names = list(result["iou"])
    if len(names) <= MOST_CLASSES:
        return names
    num_labeled = [sum(row) for row in result["confusion"]]
    largest = sorted(range(len(names)), key=lambda i: -num_labeled[i])[:MOST_CLASSES]
    return [names[i] for i in sorted(largest)]


def _analysis_lines(result: dict) -> list[str]:
    """Lay out Table 2c, the unity pyramid and the oracles."""
    levels = range(1, len(result["level_miou"]) + 1)
    lines = ["mIoU of each level alone (rows), on the pixels that each level decides (columns), coarse to fine"]
    lines += ["       " + "".join(f"{level:>8}" for level in levels)]
    for level, row in zip(levels, result["level_miou"], strict=True):
        lines.append(f"level {level}" + "".join(f"{_percent(value):>8}" for value in row))
    for name, values in result["unity"].items():
        lines.append(f"unit-cells found, {name} by level: {', '.join(map(_percent, values))}")
    oracle = result["oracle"]
    lines.append(
        f"mIoU with the true unity pyramid {_percent(oracle['true_unity_miou'])}, with the true semantic pyramid "
        f"{_percent(oracle['true_semantic_miou'])}"
    )
    return lines


def _width(heading: str) -> int:
    return max(6, len(heading))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"
