"""A comparison of experiments as text: for a terminal, and as Markdown."""

from collections.abc import Mapping, Sequence

from pyrseg_jax.errors import escaped

SCORES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_dice": "mean Dice (F1)",
    "rarest_miou": "rarest classes",
    "boundary_miou": "boundary mIoU",
}
JOINED = {"one": "", "seeds": "{} seeds, mean", "folds": "{} folds, pooled"}
RARE_MARK, CLEAR_MARK = "(rare)", "*"


def comparison_table(comparison: Mapping) -> str:
    """Lay out a comparison for a terminal; the argument is the content of `comparison.json`."""
    experiments, differences = comparison["experiments"], comparison["differences"]
    lines = [heading(comparison), ""]
    rows = [["", *SCORES.values(), "step"]]
    rows += [[_numbered(i, e), *map(_cell, _in_order(e)), _steps(e)] for i, e in enumerate(experiments, 1)]
    if differences:
        rows.append([f"minus {_numbered(1, experiments[0])}"])
        rows += [[_numbered(i, d), *(_cell(v, "+") for v in _in_order(d))] for i, d in enumerate(differences, 2)]
    seeds = [(i, e) for i, e in enumerate(experiments, 1) if e["joined"] == "seeds"]
    if seeds:
        rows.append(["standard deviation over seeds"])
        rows += [[_numbered(i, e), *(_percent(v["deviation"]) for v in _in_order(e))] for i, e in seeds]
    lines += _aligned(rows)
    lines += ["", *_aligned(_class_rows(comparison))]
    lines += ["", *explanations(comparison), *level_lines(comparison)]
    return "\n".join([*lines, *(f"note: {escaped(note)}" for note in comparison["notes"])])


def _class_rows(comparison: Mapping) -> list[list[str]]:
    """Return the rows of the classes: their pixels and images, their IoU, and the differences from the first experiment."""
    experiments, differences = comparison["experiments"], comparison["differences"]
    heads = [f"IoU {i}" for i in range(1, len(experiments) + 1)]
    rows = [["class", "pixels", "images", *heads, *(f"{i} - 1" for i in range(2, len(experiments) + 1))]]
    for name, about in comparison["classes"].items():
        row = [_class_name(name, comparison), pixel_share(about, comparison), _count(about["images"])]
        row += [_percent(e["iou"][name]["value"]) for e in experiments]
        rows.append(row + [_marked(d["iou"][name]) for d in differences])
    return rows


def comparison_markdown(comparison: Mapping) -> str:
    """Lay out a comparison as Markdown, with the interval of each number; the argument is the content of `comparison.json`."""
    experiments, differences = comparison["experiments"], comparison["differences"]
    lines = ["# Comparison", "", heading(comparison), ""]
    lines += _grid(["", *SCORES.values()], [[_bold(e), *map(_cell, _in_order(e))] for e in experiments])
    if differences:
        first = _plain(experiments[0]["label"])
        rows = [[_bold(d), *(_cell(v, "+") for v in _in_order(d))] for d in differences]
        lines += [f"Differences from **{first}**:", "", *_grid(["", *SCORES.values()], rows)]
    seeds = [e for e in experiments if e["joined"] == "seeds"]
    if seeds:
        rows = [[_bold(e), *(_percent(v["deviation"]) for v in _in_order(e))] for e in seeds]
        lines += ["Standard deviation over seeds:", "", *_grid(["", *SCORES.values()], rows)]
    lines += ["## Classes", ""]
    heads = [_plain(e["label"]) for e in experiments] + [
        f"{_plain(d['label'])} minus {_plain(d['minus'])}" for d in differences
    ]
    rows = []
    for name, about in comparison["classes"].items():
        row = [_plain(_class_name(name, comparison)), pixel_share(about, comparison), _count(about["images"])]
        row += [_cell(e["iou"][name]) for e in experiments]
        rows.append(row + [_cell(d["iou"][name], "+") + _clear(d["iou"][name]) for d in differences])
    lines += _grid(["class", "pixels", "images", *heads], rows)
    for line in explanations(comparison):
        lines += [_plain(line), ""]
    lines += [*_level_table(experiments), "## Runs", ""]
    for experiment in experiments:
        lines += [f"* {_bold(experiment)}{_joined(experiment)}"]
        lines += [f"    * `{escaped(run['result'])}`, step {run['step']}" for run in experiment["runs"]]
    if comparison["notes"]:
        lines += ["", "## Notes", "", *(f"* {_plain(note)}" for note in comparison["notes"])]
    return "\n".join(lines) + "\n"


def heading(comparison: Mapping) -> str:
    """Say in one line what the numbers were computed from."""
    text = (
        f"{comparison['images']:,} images with {comparison['labeled_pixels']:,} labeled pixels of "
        f"{len(comparison['classes'])} classes; percent"
    )
    has_intervals = any(e["scores"]["miou"]["low"] is not None for e in comparison["experiments"])
    if has_intervals:
        text += f", with {100 * comparison['confidence']:.0f} % intervals from {comparison['resamples']:,} resamples of the images"
    return text


def explanations(comparison: Mapping) -> list[str]:
    """Return the lines that explain the marks and words of the tables."""
    rarest = ", ".join(escaped(name) for name in comparison["rarest"])
    lines = [f"rarest classes, mean IoU {RARE_MARK}: {rarest}"] if rarest else []
    if any(_clear(value) for d in comparison["differences"] for value in d["iou"].values()):
        lines.append(
            f"{CLEAR_MARK} the interval of the difference does not contain 0; among many classes, some are marked by chance"
        )
    return lines


def _level_table(experiments: Sequence[Mapping]) -> list[str]:
    """Return the share of the positions that each level decides, as a table of Markdown."""
    shares = {_bold(e): e["level_share"] for e in experiments if e["level_share"] is not None}
    most = max(map(len, shares.values()), default=0)
    if most < 2:
        return []
    rows = [[name, *(f"{100 * x:.1f} %" for x in share), *[""] * (most - len(share))] for name, share in shares.items()]
    return _grid(["share of positions", *(f"level {i}" for i in range(1, most + 1))], rows)


def level_lines(comparison: Mapping) -> list[str]:
    """Return the share of the positions that each level decides, a line for each experiment."""
    rows = []
    for i, experiment in enumerate(comparison["experiments"], 1):
        shares = experiment["level_share"]
        if shares is not None and len(shares) > 1:
            rows.append([f"  {_numbered(i, experiment)}", *(f"{100 * share:.1f} %" for share in shares)])
    return ["share of positions that each level decides, coarse to fine:", *_aligned(rows)] if rows else []


def pixel_share(about: Mapping, comparison: Mapping) -> str:
    """Return the share of the labeled pixels that a class has."""
    total = comparison["labeled_pixels"]
    return f"{100 * about['pixels'] / total:.2f} %" if total else "–"


def _in_order(entry: Mapping) -> list[Mapping]:
    return [entry["scores"][key] for key in SCORES]


def _cell(value: Mapping, sign: str = "") -> str:
    """Write a score and its interval: `47.99 [46.10, 49.83]`."""
    text = _percent(value["value"], sign)
    if value["low"] is None:
        return text
    return f"{text} [{100 * value['low']:{sign}.2f}, {100 * value['high']:{sign}.2f}]"


def _percent(share: float | None, sign: str = "") -> str:
    return "–" if share is None else f"{100 * share:{sign}.2f}"


def _clear(difference: Mapping) -> str:
    """Return the mark of a difference whose interval does not contain 0."""
    is_clear = difference["low"] is not None and (difference["low"] > 0 or difference["high"] < 0)
    return f" {CLEAR_MARK}" if is_clear else ""


def _marked(difference: Mapping) -> str:
    return _percent(difference["value"], "+") + (_clear(difference) or "  ")


def _count(number: int | None) -> str:
    return "–" if number is None else str(number)


def _class_name(name: str, comparison: Mapping) -> str:
    return escaped(name) + (f" {RARE_MARK}" if name in comparison["rarest"] else "")


def _numbered(number: int, entry: Mapping) -> str:
    return f"{number} {escaped(entry['label'])}"


def _joined(experiment: Mapping) -> str:
    text = JOINED[experiment["joined"]].format(len(experiment["runs"]))
    return f" ({text})" if text else ""


def _steps(experiment: Mapping) -> str:
    steps = sorted({run["step"] for run in experiment["runs"]})
    return (f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} … {steps[-1]}") + _joined(experiment)


def _plain(text: str) -> str:
    """Escape what would be markup in a table of Markdown."""
    return "".join(f"\\{c}" if c in "\\|*_`<[" else c for c in escaped(text))


def _bold(entry: Mapping) -> str:
    return f"**{_plain(entry['label'])}**"


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table of Markdown, with an empty line after it."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns, the first to the left and the others to the right; a row of one cell is a heading that may be longer."""
    whole = [row for row in rows if len(row) > 1]
    widths = [max(len(row[i]) for row in whole if i < len(row)) for i in range(max(map(len, whole)))]
    lines = []
    for row in rows:
        first = row[0] if len(row) == 1 else f"{row[0]:<{widths[0]}}"
        lines.append(
            "  ".join([first, *(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=False))]).rstrip()
        )
    return lines
