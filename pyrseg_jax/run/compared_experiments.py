"""The experiments of a comparison: runs that belong together, and whether all of them were evaluated in the same way."""

import collections
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.image_scores import collect_counts
from pyrseg_jax.run.compared_runs import Argument, Run, command_for_counts, describe_images

ONE, SEEDS, FOLDS = "one", "seeds", "folds"  # how the runs of an experiment belong together
# What a training started from makes no other protocol, and `resize` puts other keys into words.
NOT_PROTOCOL = ("initialisation", "resize")


class Experiment(NamedTuple):
    """One or several runs whose scores are compared as one.

    label: its name.
    runs: the runs.
    joined: `one` run; `seeds`, several runs that were evaluated on the same images; or `folds`, on disjoint images.
    """

    label: str
    runs: tuple[Run, ...]
    joined: str

    @property
    def digests(self) -> tuple[str, ...] | None:
        """The images, sorted; None if a run has no counts."""
        if any(run.images is None for run in self.runs):
            return None
        runs = self.runs if self.joined == FOLDS else self.runs[:1]
        return tuple(sorted(digest for run in runs if run.images is not None for digest in run.images.digests))

    @property
    def counts(self) -> list[Int64[np.ndarray, "n c 3"]]:
        """The counts of the images in the order of `digests`: of each run, or of all folds together."""
        images = [run.images for run in self.runs if run.images is not None]
        if self.joined != FOLDS:
            return [run.counts for run in images]
        pairs = [[(bytes.fromhex(d), c) for d, c in zip(run.digests, run.counts, strict=True)] for run in images]
        return [collect_counts(pairs).counts]

    @property
    def sums(self) -> list[Int64[np.ndarray, "c 3"]]:
        """The sums of the counts over all images: of each run, or of all folds together."""
        sums = [run.sums for run in self.runs]
        return [np.sum(sums, 0)] if self.joined == FOLDS else sums

    @property
    def num_images(self) -> int:
        """The number of images that the experiment was evaluated on."""
        return sum(run.result.images for run in (self.runs if self.joined == FOLDS else self.runs[:1]))

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return list(self.runs[0].result.iou)


def join(label: str, runs: Sequence[Run]) -> Experiment:
    """Make an experiment of runs, and find out from their images whether they are seeds or folds.

    Raises:
      UserError: if a run is named twice, the classes differ, or the images are neither the same nor disjoint.
    """
    workdirs = [os.path.realpath(run.workdir) for run in runs]
    for run, place in zip(runs, workdirs, strict=True):
        if workdirs.count(place) > 1:
            raise UserError(f"{label}: {run.workdir} occurs twice: name each run of an experiment once")
    for run in runs[1:]:
        _check_classes(runs[0], run)
    return Experiment(label, tuple(runs), ONE if len(runs) == 1 else _how_joined(label, runs))


def _how_joined(label: str, runs: Sequence[Run]) -> str:
    without = [run for run in runs if run.images is None]
    if without:
        if all(not _differing(describe_images(runs[0]), describe_images(run)) for run in runs):
            return SEEDS
        raise UserError(
            f"{label}: the runs were evaluated on different images, and {without[0].path} has no counts of its images, by which "
            f"folds are recognized: run `{command_for_counts(without[0])}`"
        )
    images = [run.images.digests for run in runs if run.images is not None]
    if all(digests == images[0] for digests in images):
        return SEEDS
    for (i, a), (j, b) in itertools.combinations(enumerate(images), 2):
        shared = len(set(a) & set(b))
        if shared:
            raise UserError(
                f"{label}: {runs[i].path} ({len(a)} images) and {runs[j].path} ({len(b)} images) have {shared} images in common: "
                "expected the same images (seeds of one experiment) or no common one (folds)"
            )
    return FOLDS


def label_all(arguments: Sequence[Argument], runs: Sequence[Sequence[Run]]) -> list[str]:
    """Name the experiments: as the user does, else by their folders, else as they are written; a repeated name gets a number."""
    short = [a.label or _name(group) for a, group in zip(arguments, runs, strict=True)]
    labels = [
        a.text if short.count(name) > 1 and not a.label else name for a, name in zip(arguments, short, strict=True)
    ]
    seen: collections.Counter[str] = collections.Counter()
    found = []
    for label in labels:
        seen[label] += 1
        found.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return found


def _name(runs: Sequence[Run]) -> str:
    """Return the name of the folder of a run, or what the names of several begin with."""
    names = [run.workdir.name or str(run.workdir) for run in runs]
    return names[0] if len(names) == 1 else os.path.commonprefix(names).rstrip("-_. ") or "+".join(names)


def check_same(experiments: Sequence[Experiment]) -> list[str]:
    """Check that all experiments have the classes and images of the first one; return what else is different, in sentences.

    Raises:
      UserError: naming two results, if their classes or images differ.
    """
    first = experiments[0]
    for other in experiments[1:]:
        _check_classes(first.runs[0], other.runs[0])
        _check_images(first, other)
    runs = [run for experiment in experiments for run in experiment.runs]
    return [*_differences_of_protocols(runs), *_missing_counts(runs)]


def _check_classes(first: Run, other: Run) -> None:
    before, now = list(first.result.iou), list(other.result.iou)
    if before != now:
        what = f"{len(before)} and {len(now)} classes"
        if len(before) == len(now):
            place = next(i for i, (a, b) in enumerate(zip(before, now, strict=True)) if a != b)
            what = f"other classes ({before[place]!r} and {now[place]!r} at place {place})"
        raise UserError(
            f"{first.path} and {other.path} have {what}: runs can be compared if their data sets have the same classes in the same "
            "order"
        )


def _check_images(first: Experiment, other: Experiment) -> None:
    names = f"{_first_paths(first)} and {_first_paths(other)}"
    a, b = first.digests, other.digests
    if a is None or b is None:
        if _differing(*({"images": e.num_images, "labeled": e.sums[0][:, 2].tolist()} for e in (first, other))):
            raise UserError(
                f"{names} were evaluated on different images: evaluate both on the same split of the same data"
            )
        if FOLDS not in (first.joined, other.joined):
            _check_fingerprints(names, first.runs[0], other.runs[0])
        return
    if a != b:
        common = sum((collections.Counter(a) & collections.Counter(b)).values())
        raise UserError(
            f"{names} were evaluated on different images: {common} are the same, {len(a) - common} only in the first and "
            f"{len(b) - common} only in the second; evaluate both on the same split of the same data"
        )
    if not np.array_equal(first.counts[0][..., 2], other.counts[0][..., 2]):
        raise UserError(f"{names} count different labeled pixels in the same images; evaluate the checkpoints again")


def _check_fingerprints(names: str, first: Run, other: Run) -> None:
    found = _differing(describe_images(first), describe_images(other))
    if found:
        raise UserError(f"{names} were evaluated on different images (another {found[0]} of the data)")


def _first_paths(experiment: Experiment) -> str:
    num_more = len(experiment.runs) - 1
    return f"{experiment.runs[0].path}" + (f" (and {num_more} more)" if num_more else "")


def _differing(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """List the keys whose values differ; a key that only one of them has does not count."""
    return [key for key in first if key in other and first[key] != other[key]]


def _differences_of_protocols(runs: Sequence[Run]) -> list[str]:
    """Say in which keys the protocols of the runs differ from that of the first one."""
    first = runs[0]
    found = []
    for run in runs[1:]:
        before, now = _settings(first), _settings(run)
        keys = [key for key in _differing(before, now) if key not in NOT_PROTOCOL]
        if keys:
            what = ", ".join(f"{key} {now[key]} instead of {before[key]}" for key in keys)
            found.append(f"{run.path} has another protocol than {first.path}: {what}")
    return found


def _settings(run: Run) -> dict[str, Any]:
    """Return what is set for an evaluation, by name."""
    split = {} if run.result.data is None else {"split": run.result.data.split}
    return split | dict(run.result.protocol) | {"boundary_px": run.result.boundary_px}


def _missing_counts(runs: Sequence[Run]) -> list[str]:
    return [
        f"{run.path} has no counts of its images, so that there are no intervals: run `{command_for_counts(run)}`"
        for run in runs
        if run.images is None
    ]
