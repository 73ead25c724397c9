"""Assemble the report: one HTML page that needs no network, with its style sheet, its script and its images inside."""

import base64
import hashlib
import importlib.resources
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.errors import escaped
from pyrseg_jax.evaluation.image_scores import ImageCounts, miou_of_images
from pyrseg_jax.report import confidence, confusions, facts, gallery, scores, trust
from pyrseg_jax.report.choice import Chosen, most_frequent
from pyrseg_jax.report.collect import Collected
from pyrseg_jax.report.examples import Example, Place
from pyrseg_jax.report.markup import text, to_script
from pyrseg_jax.reporting.palette import colors_of, level_colors
from pyrseg_jax.reporting.scripts import SHARED, shared_script

SCRIPTS = (
    "tables.js",
    "readout.js",
    "report.js",
)  # one script on the page, after those of `SHARED`; the last file starts it
MOST_PAIRS = 4000  # entries of the confusion matrix that the script knows


class Gallery(NamedTuple):
    """The images of a report.

    examples: those that are shown.
    chosen: digest of an image → why it is shown.
    places: digest of an image → its place in the split.
    reports: name of a split → its report, as far as they are known.
    thresholds: positions of the slider.
    notes: what is missing, and why.
    """

    examples: Sequence[Example] = ()
    chosen: Mapping[str, Chosen] = {}
    places: Mapping[str, Place] = {}
    reports: Mapping[str, DatasetReport] = {}
    thresholds: Sequence[float] = ()
    notes: Sequence[str] = ()


def assemble(collected: Collected, shown: Gallery) -> str:
    """Return the page.

    Args:
      collected: what the run has written.
      shown: its images.
    """
    sections = {
        "Scores": scores.head(collected),
        "Training": scores.charts(collected),
        "Classes": scores.classes(collected),
        "Levels": scores.levels(collected),
        "Confusion": confusions.confusion(collected),
        "Examples": _examples(collected, shown),
        "Images": gallery.images(_counts(collected), shown.places, shown.examples),
        "Labels": trust.labels(trust.read_rankings(collected.workdir)),
        "Confidence": confidence.confidence(confidence.read_calibration(collected.workdir), collected.values),
        "Data": facts.data(collected.label_space, shown.reports),
        "Configuration": facts.configuration(collected.config),
        "Environment": facts.environment(collected),
    }
    style, script = _asset("report.css"), "".join([*map(shared_script, SHARED), *map(_asset, SCRIPTS)])
    name = collected.workdir.name or str(collected.workdir)
    links = "".join(f'<li><a href="#{_identity(part)}">{title}</a></li>' for title, part in sections.items() if part)
    notes = "".join(f"<li>{text(note)}</li>" for note in shown.notes)
    return string.Template(_asset("report.html")).substitute(
        title=text(f"{name} – report of a run"),
        name=text(name),
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'",
        style=style,
        script=script,
        links=links,
        notes=f'<ul class="notes">{notes}</ul>' if notes else "",
        sections="\n".join(part for part in sections.values() if part),
        values=to_script(_values(collected, shown)),
    )


def _examples(collected: Collected, shown: Gallery) -> str:
    counts = _counts(collected)
    of_images = {}
    if counts is not None:
        score = miou_of_images(counts.counts)
        of_images = {digest: float(score[i]) for i, digest in enumerate(counts.digests) if not np.isnan(score[i])}
    return gallery.examples(shown.examples, shown.chosen, collected.label_space.names, of_images)


def _values(collected: Collected, shown: Gallery) -> dict[str, Any]:
    """Return what the script needs."""
    num_levels = max((len(example.packed["semantic"]) for example in shown.examples), default=1)
    threshold = collected.values.get("protocol", {}).get("threshold", collected.config.evaluation.threshold)
    thresholds = list(shown.thresholds)
    pairs = {}
    if collected.values:
        matrix = np.array(collected.values["confusion"], np.int64)
        pairs = {f"{e.truth},{e.predicted}": e.pixels for e in most_frequent(matrix, MOST_PAIRS)}
    return {
        "thresholds": thresholds,
        "own": thresholds.index(threshold) if threshold in thresholds else len(thresholds) // 2,
        "names": list(map(escaped, collected.label_space.names)),
        "colors": colors_of(collected.label_space).tolist(),
        "levelColors": level_colors(num_levels).tolist(),
        "void": collected.label_space.void,
        "pairs": pairs,
        "examples": gallery.pack([example._replace(name=escaped(example.name)) for example in shown.examples]),
    }


def _counts(collected: Collected) -> ImageCounts | None:
    return None if collected.run is None else collected.run.images


def _identity(part: str) -> str:
    return part.partition('id="')[2].partition('"')[0]


def _asset(name: str) -> str:
    return (importlib.resources.files("pyrseg_jax.report") / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """Return the hash by which a page allows one style sheet or script, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
