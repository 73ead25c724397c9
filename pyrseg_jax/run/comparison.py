"""Compute the scores of experiments, their differences from the first experiment, and the intervals of both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from pyrseg_jax.evaluation import bootstrap
from pyrseg_jax.evaluation.bootstrap import SCORES
from pyrseg_jax.run.compared_experiments import FOLDS, SEEDS, Experiment, check_same

Samples = Float64[np.ndarray, "b s"]


def compare_experiments(experiments: Sequence[Experiment], num_resamples: int = bootstrap.NUM_RESAMPLES) -> dict:
    """Compare experiments with the first one.

    Args:
      experiments: at least one.
      num_resamples: the number of resamples of the bootstrap.

    Returns:
      The content of `comparison.json`, which docs/guide/comparing.md describes.

    Raises:
      UserError: if the experiments differ in their classes or images.
    """
    notes = check_same(experiments)
    names, labeled = experiments[0].classes, experiments[0].sums[0][:, 2]
    rarest = bootstrap.rarest_classes(labeled)
    points = [bootstrap.scores_of_experiment(experiment.sums, rarest) for experiment in experiments]
    counts = {i: experiment.counts for i, experiment in enumerate(experiments) if experiment.digests}
    samples: dict[int, Samples] = {}
    images: list[int | None] = [None] * len(names)
    if counts:
        drawn = bootstrap.bootstrap(list(counts.values()), rarest, num_resamples)
        samples = dict(zip(counts, drawn, strict=True))
        images = (next(iter(counts.values()))[0][..., 2] > 0).sum(0).tolist()
    boundaries = [_boundary(experiment) for experiment in experiments]
    described: list[dict] = []
    differences: list[dict] = []
    for i, experiment in enumerate(experiments):
        entry = {"label": experiment.label, "joined": experiment.joined, "runs": _describe_runs(experiment)}
        entry |= _values(names, points[i], samples.get(i), boundaries[i], _spreads(experiment, rarest))
        described.append(entry | {"level_share": _level_share(experiment)})
        if i > 0:
            paired = samples[i] - samples[0] if {0, i} <= samples.keys() else None
            boundary = _boundary_difference(boundaries[i], boundaries[0])
            entry = {"label": experiment.label, "minus": experiments[0].label}
            differences.append(entry | _values(names, points[i] - points[0], paired, boundary))
    return {
        "images": experiments[0].num_images,
        "labeled_pixels": int(labeled.sum()),
        "resamples": num_resamples,
        "seed": bootstrap.SEED,
        "confidence": bootstrap.CONFIDENCE,
        "classes": {name: {"pixels": int(labeled[c]), "images": images[c]} for c, name in enumerate(names)},
        "rarest": [names[c] for c in rarest],
        "experiments": described,
        "differences": differences,
        "notes": notes,
    }


def _describe_runs(experiment: Experiment) -> list[dict]:
    return [
        {"result": str(run.path), "step": run.result.step, "images": run.result.images, "protocol": run.result.protocol}
        for run in experiment.runs
    ]


def _values(
    names: Sequence[str],
    points: np.ndarray,
    samples: Samples | None,
    boundary: dict,
    spreads: np.ndarray | None = None,
) -> dict[str, dict]:
    """Return `scores` and `iou`: of each score its value, the bounds of its interval, and what the runs have.

    Args:
      names: of the classes.
      points: the scores, as `bootstrap.scores_of_sums` orders them.
      samples: the scores of the resamples, if there are counts.
      boundary: the entry of the mIoU near boundaries.
      spreads: the scores of each run, if the runs are seeds.
    """
    bounds = [None] * len(points) if samples is None else bootstrap.intervals(samples)
    entries = []
    for i, (point, interval) in enumerate(zip(points, bounds, strict=True)):
        entry: dict[str, Any] = {"value": _number(point), "low": None, "high": None}
        if interval is not None and not np.isnan(point):
            entry |= {"low": interval.low, "high": interval.high}
        if spreads is not None:
            entry |= _spread([_number(value) for value in spreads[:, i]])
        entries.append(entry)
    return {
        "scores": dict(zip(SCORES, entries, strict=False)) | {"boundary_miou": boundary},
        "iou": dict(zip(names, entries[len(SCORES) :], strict=True)),
    }


def _spreads(experiment: Experiment, rarest: Sequence[int]) -> np.ndarray | None:
    """Return the scores of each run of an experiment with several seeds."""
    if experiment.joined != SEEDS:
        return None
    return np.stack([bootstrap.scores_of_sums(sums, rarest) for sums in experiment.sums])


def _spread(values: Sequence[float | None]) -> dict:
    """Return the values of the runs and their sample standard deviation."""
    found = [value for value in values if value is not None]
    return {"runs": list(values), "deviation": float(np.std(found, ddof=1)) if len(found) > 1 else None}


def _boundary(experiment: Experiment) -> dict:
    """Return the mIoU near boundaries. There are no counts of single images for it, so that folds cannot be pooled."""
    values = [run.result.boundary_miou for run in experiment.runs]
    known = [value for value in values if value is not None]
    is_complete = experiment.joined != FOLDS and len(known) == len(values)
    found = {"value": float(np.mean(known)) if is_complete else None, "low": None, "high": None}
    return found | (_spread(values) if experiment.joined == SEEDS else {})


def _boundary_difference(entry: Mapping, first: Mapping) -> dict:
    value, other = entry["value"], first["value"]
    return {"value": None if None in (value, other) else value - other, "low": None, "high": None}


def _level_share(experiment: Experiment) -> list[float] | None:
    """Return the share of positions that each level decides, coarse to fine: the mean over the runs, weighted by their images."""
    shares = [run.result.level_share for run in experiment.runs]
    weights = [run.result.images for run in experiment.runs]
    known = [share for share in shares if share is not None]
    if len(known) < len(shares) or len({len(share) for share in known}) != 1 or not sum(weights):
        return None
    return [float(value) for value in np.average(np.array(known), axis=0, weights=weights)]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
