"""Compute the scores of experiments, their differences from the first experiment, and the intervals of both."""

from collections.abc import Mapping, Sequence

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
    described = [
        {"label": experiment.label, "joined": experiment.joined, "runs": _describe_runs(experiment)}
        | _values(names, points[i], samples.get(i), _spreads(experiment, rarest))
        | {"level_share": _level_share(experiment)}
        for i, experiment in enumerate(experiments)
    ]
    for entry, experiment in zip(described, experiments, strict=True):
        entry["scores"]["boundary_miou"] = _boundary(experiment)
    differences = []
    for i, entry in enumerate(described[1:], 1):
        paired = samples[i] - samples[0] if {0, i} <= samples.keys() else None
        found = {"label": entry["label"], "minus": described[0]["label"]}
        found |= _values(names, points[i] - points[0], paired)
        found["scores"]["boundary_miou"] = _difference_near_boundaries(entry, described[0])
        differences.append(found)
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
    names: Sequence[str], points: np.ndarray, samples: Samples | None, spreads: np.ndarray | None = None
) -> dict[str, dict]:
    """Return `scores` and `iou`: of each score its value, the bounds of its interval, and what the runs have."""
    bounds = [None] * len(points) if samples is None else bootstrap.intervals(samples)
    entries = []
    for i, (point, interval) in enumerate(zip(points, bounds, strict=True)):
        is_defined = not np.isnan(point) and interval is not None
        entry = {"value": _number(point)}
        entry |= {"low": interval.low, "high": interval.high} if is_defined else {"low": None, "high": None}
        if spreads is not None:
            entry |= _spread([_number(value) for value in spreads[:, i]])
        entries.append(entry)
    return {
        "scores": dict(zip(SCORES, entries, strict=False)),
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


def _difference_near_boundaries(entry: Mapping, first: Mapping) -> dict:
    value, other = (e["scores"]["boundary_miou"]["value"] for e in (entry, first))
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
