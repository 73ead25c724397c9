"""The sections of the page about facts: the data set, the configuration, and the environment."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.report.collect import Collected
from pyrseg_jax.report.markup import Cell, count, details, paragraph, section, table, text, words
from pyrseg_jax.run import keys
from pyrseg_jax.run.config import Config

MOST_SIZES = 12
MOST_PROBLEMS = 50


def data(label_space: LabelSpace, reports: Mapping[str, DatasetReport]) -> str:
    """Lay out what is known of the splits of the data set.

    Args:
      label_space: the classes.
      reports: name of a split → its report.
    """
    if not reports:
        return ""
    headings, rows = ["class"], [[words(name)] for name in label_space.names]
    for split, found in reports.items():
        headings += [
            f"{split}: share of pixels, %",
            f"{split}: images",
            f"{split}: in unit-cells of stride {found.strides[0]}, %",
        ]
        total = max(1, int(found.pixels.sum()))
        for i, row in enumerate(rows):
            row += [
                _share(found.pixels[i], total),
                count(int(found.images[i])),
                _share(found.unit_pixels[0, i], found.cell_pixels[i]),
            ]
    totals = "".join(_totals(split, found) for split, found in reports.items())
    return section(
        "data", "Data", totals, table("Classes in the data set", headings, rows, is_sortable=True, kind="numbers")
    )


def configuration(config: Config) -> str:
    """Lay out the configuration, the values that differ from the defaults first."""
    about = keys.keys_of(Config)
    changed, same = [], []
    for name, key in about.items():
        value = keys.value_of(config, name)
        cells = [Cell(f"<code>{text(name)}</code>", name), _value(value), _value(key.default), words(key.description)]
        (changed if value != key.default else same).append(cells)
    headings = ["key", "value", "default", "meaning"]
    return section(
        "configuration",
        "Configuration",
        table("Values that differ from the defaults", headings, changed, kind="keys")
        if changed
        else paragraph("All keys have their defaults."),
        details(
            f"The other {len(same)} keys, which have their defaults",
            table("Values that are the defaults", headings, same, kind="keys"),
        ),
    )


def environment(collected: Collected) -> str:
    """Lay out where and from what the run was trained, and how it ended."""
    rows = [[words("workdir"), _value(str(collected.workdir))]]
    end = collected.end
    rows.append(
        [words("end of the training"), words(f"step {end['step']}: {end.get('reason', '')}" if "step" in end else "–")]
    )
    initial = collected.initialization
    rows += _flat("initial weights", initial)
    for name, value in collected.environment.items():
        rows += _flat(name, value)
    return section("environment", "Environment", table("Environment of the training", ["", "value"], rows, kind="keys"))


def _flat(name: str, value: Any) -> list[list[Cell]]:
    if isinstance(value, Mapping):
        return [row for key, part in value.items() for row in _flat(f"{name}: {key}", part)]
    shown = " ".join(map(str, value)) if isinstance(value, list) else value
    return [[words(name), _value(shown)]]


def _value(value: Any) -> Cell:
    return Cell(f"<code>{text(keys.to_text(value) if value not in (None, ()) else value)}</code>", None)


def _share(part: np.integer, whole: int | np.integer) -> Cell:
    return Cell(f"{100 * part / whole:.2f}", float(part / whole)) if whole else words("–")


def _totals(split: str, found: DatasetReport) -> str:
    pixels = int(found.pixels.sum()) + found.num_void
    void = f"{100 * found.num_void / pixels:.2f} % of all pixels are void" if pixels else "without pixels"
    sizes = [f"{width} × {height} ({number:,})" for (height, width), number in found.sizes.most_common(MOST_SIZES)]
    more = f" and {len(found.sizes) - MOST_SIZES:,} other sizes" if len(found.sizes) > MOST_SIZES else ""
    line = f"{split}: {found.num_images:,} images; {void}; sizes (width × height): {', '.join(sizes)}{more}."
    facts = {
        "images whose label map has a single value": found.num_constant,
        "images that are void everywhere": found.num_unlabeled,
        "photographs that EXIF turns and whose label maps fit both ways": len(found.turned),
    }
    notes = "".join(f"<li>{number:,} {text(name)}</li>" for name, number in facts.items() if number)
    problems = [message for _, message in found.problems if message]
    notes += f"<li>{len(found.problems):,} pairs that cannot be used</li>" if found.problems else ""
    notes += "".join(f"<li>{text(message)}</li>" for message in problems[:MOST_PROBLEMS])
    return paragraph(line) + (f"<ul>{notes}</ul>" if notes else "")
