"""Summarize what an import wrote, as text and as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyrseg_jax.importing.annotations import Notes
from pyrseg_jax.importing.legend import Legend
from pyrseg_jax.importing.splits import TRAINING

MAX_LINES = 10  # near-duplicate pairs and classes that the text names; the JSON has all of them


def make_summary(
    source: Path,
    format_name: str,
    evidence: str,
    legend: Legend,
    pixels: Mapping[str, np.ndarray],
    counts: Mapping[str, int],
    how: Mapping[str, int],
    split_source: str,
    notes: Notes,
    near: Sequence[Mapping[str, Any]],
) -> dict:
    """Return everything about an import.

    Args:
      source, format_name, evidence: what was read, its format, and how the format was recognized.
      legend: the classes.
      pixels: split → number of pixels of each value of the source's class maps.
      counts: split → number of pictures.
      how: how pictures were written → number of pictures.
      split_source: a line that says where the splits come from.
      notes: what was left out, and what was read in a special way.
      near: pairs of nearly equal pictures between training and other splits.
    """
    total = np.sum(list(pixels.values()), 0) if pixels else np.zeros(len(legend.table), np.int64)
    written = {split: _by_class(found, legend) for split, found in pixels.items()}
    return {
        "source": str(source),
        "format": format_name,
        "evidence": evidence,
        "images": dict(counts),
        "splits": split_source,
        "written": dict(how),
        "classes": [
            {
                "value": value,
                "name": name,
                "pixels": {split: int(found[value]) for split, found in written.items()},
                "share": float(sum(found[value] for found in written.values()) / max(int(total.sum()), 1)),
            }
            for value, name in enumerate(legend.names, 1)
        ],
        "void": {
            "pixels": {split: int(found[0]) for split, found in written.items()},
            "share": float(sum(found[0] for found in written.values()) / max(int(total.sum()), 1)),
            "from": list(legend.void_from),
            "splits": [split for split, found in written.items() if not found[1:].any()],
            "classes_left_out": {name: int(total[value]) for value, name in legend.left_out.items()},
        },
        "skipped": [{"reason": reason, "count": count, "first": first} for reason, count, first in notes.lines()],
        "remarks": [{"remark": text, "count": count, "first": first} for text, count, first in notes.remarks()],
        "near_duplicates": list(near),
    }


def _by_class(pixels: np.ndarray, legend: Legend) -> np.ndarray:
    return np.bincount(legend.table, weights=pixels, minlength=len(legend.names) + 1).astype(np.int64)


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the lines that a person reads at the end of an import."""
    images = summary["images"]
    listed = ", ".join(f"{count:,} {split}" for split, count in images.items())
    how = ", ".join(f"{count:,} {kind}" for kind, count in summary["written"].items())
    lines = [f"images: {listed} ({how}); splits: {summary['splits']}", "class                          share of pixels"]
    lines += [f"{item['value']:>5} {item['name'][:24]:<24} {item['share']:>9.3%}" for item in summary["classes"]]
    void = summary["void"]
    origin = f"  from {' and '.join(void['from'])}" if void["from"] else ""
    lines.append(f"    0 {'void':<24} {void['share']:>9.3%}{origin}")
    lines += [_void_line(split, images[split]) for split in void["splits"]]
    for name, count in void["classes_left_out"].items():
        lines.append(f"left out by --classes: {name!r}, {count:,} pixels became void")
    absent = [item["name"] for item in summary["classes"] if not item["share"]]
    if absent:
        more = ", …" if len(absent) > MAX_LINES else ""
        lines.append(f"classes without a pixel: {', '.join(absent[:MAX_LINES])}{more}")
    for note in summary["remarks"]:
        lines.append(f"note: {note['count']:,} × {note['remark']}; the first: {note['first']}")
    for note in summary["skipped"]:
        lines.append(f"skipped: {note['count']:,} × {note['reason']}; the first: {note['first']}")
    if not summary["skipped"]:
        lines.append("skipped: nothing")
    lines += _near_lines(summary["near_duplicates"])
    return "\n".join(lines)


def _void_line(split: str, count: int) -> str:
    """Warn that a split has no labels, and say what it is still good for."""
    found = f"warning: every pixel of the split {split} ({count:,} pictures) is void"
    if split == TRAINING:
        return f"{found}, so nothing can be learned from it: check the annotations, --classes, and --unlabeled"
    return (
        f"{found}, so it has no scores: evaluate on another split, or segment its pictures with `pyrseg predict`. Some publishers "
        "keep the labels of their test pictures"
    )


def _near_lines(near: Sequence[Mapping[str, Any]]) -> list[str]:
    if not near:
        return ["near duplicates between training and the other splits: none found"]
    lines = [
        f"near duplicates: {len(near)} outside training look like a picture in training, so scores on them say little; keep the "
        "frames of one video together with --group=REGEX"
    ]
    lines += [f"  {pair['other']} ({pair['split']}) looks like {pair['training']}" for pair in near[:MAX_LINES]]
    return lines + ([f"  and {len(near) - MAX_LINES} more, see import.json"] if len(near) > MAX_LINES else [])
