"""Intervals of scores by the bootstrap over images: how much would a score differ if other images had been drawn?

Images are drawn with replacement, as many as there are. The counts of the drawn images are added up, and the scores are computed
from the sums, as for the whole split. All runs that are compared get the same draws, so the samples of a difference are paired.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Real

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
MAX_VALUES = 2**22  # of the arrays of a block of resamples: 32 MiB each
SCORES = (
    "miou",
    "pixel_accuracy",
    "mean_dice",
    "rarest_miou",
)  # of the first columns; those after them are the IoU of the classes

Counts = Int64[
    np.ndarray, "n c 3"
]  # of images: pixels predicted rightly, predicted, and labeled, as in `image_scores.ImageCounts`


class Interval(NamedTuple):
    """The bounds of an interval."""

    low: float
    high: float


def scores_of_sums(sums: Real[np.ndarray, "*b c 3"], rarest: Sequence[int]) -> Float64[np.ndarray, "*b s"]:
    """Compute scores from sums of counts.

    Args:
      sums: pixels of each of the C classes that are predicted rightly, that are predicted, and that are labeled; exact below 2^53.
      rarest: the classes of `rarest_miou`.

    Returns:
      4 + C scores, as fractions of 1: those of `SCORES`, then the IoU of each class. A class that is neither labeled nor predicted
      has no IoU and no Dice (NaN); the means are over the classes that have one. Without such a class, or without a labeled pixel,
      a mean is NaN.

    Chosen: this is the rule of `metrics.scores`, applied to the sums at hand. So a class that is neither labeled nor predicted in
      the images of a resample does not count in the means of this resample.
    """
    right, predicted, labeled = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    both = predicted + labeled
    iou, dice = _ratio(right, both - right), _ratio(2 * right, both)
    is_labeled = labeled.sum(-1) > 0
    means = [mean_of_defined(iou), _ratio(right.sum(-1), labeled.sum(-1)), mean_of_defined(dice)]
    means.append(mean_of_defined(iou[..., list(rarest)]))
    means = np.where(is_labeled[..., None], np.stack(means, -1), np.nan)
    return np.concatenate([means, iou], -1)


def mean_of_defined(values: Float64[np.ndarray, "*b k"]) -> Float64[np.ndarray, "*b"]:
    """Average the values of the last axis that are not NaN; NaN if there are none."""
    is_defined = ~np.isnan(values)
    return _ratio(np.where(is_defined, values, 0.0).sum(-1), is_defined.sum(-1))


def scores_of_experiment(sums: Sequence[Real[np.ndarray, "c 3"]], rarest: Sequence[int]) -> Float64[np.ndarray, "s"]:
    """Compute the scores of an experiment: the mean over its runs; arguments as for `scores_of_sums`, one array for each run."""
    return _mean_over_runs([scores_of_sums(run, rarest) for run in sums])


def bootstrap(
    experiments: Sequence[Sequence[Counts]],
    rarest: Sequence[int],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = SEED,
    max_values: int = MAX_VALUES,
) -> Float64[np.ndarray, "e b s"]:
    """Resample the images, and compute the scores of each resample.

    Args:
      experiments: for each experiment, the counts of each of its runs. The images of all runs are the same, in the same order.
      rarest: the classes of `rarest_miou`.
      num_resamples: B, the number of resamples.
      seed: of the draws. The same seed, number of images and number of resamples give the same draws.
      max_values: the largest number of values in an array of a block of resamples; it changes no result.

    Returns:
      The scores of each experiment and resample, as `scores_of_sums` orders them. The score of an experiment with several runs is
      the mean over its runs, which all see the same images of a resample.

    Raises:
      ValueError: if there are no images, or the runs have different numbers of images or classes.
    """
    shapes = sorted({run.shape for runs in experiments for run in runs})
    if len(shapes) != 1 or not shapes[0][0]:
        raise ValueError(f"experiments: the counts have the shapes {shapes}: expected one shape, with images")
    num_images, num_classes, _ = shapes[0]
    tables = [[run.reshape(num_images, -1).astype(np.float64) for run in runs] for runs in experiments]
    samples = np.empty((len(experiments), num_resamples, len(SCORES) + num_classes))
    num_rows = max(1, max_values // max(num_images, 3 * num_classes))
    start = 0
    for times in draw_multiplicities(num_images, num_resamples, seed, num_rows):
        stop = start + len(times)
        for index, runs in enumerate(tables):
            sums = [
                (times @ table).reshape(-1, num_classes, 3) for table in runs
            ]  # of integers, and so exact in any order
            samples[index, start:stop] = _mean_over_runs([scores_of_sums(run, rarest) for run in sums])
        start = stop
    return samples


def draw_multiplicities(
    num_images: int, num_resamples: int, seed: int, num_rows: int
) -> Iterator[Float64[np.ndarray, "b n"]]:
    """Yield how often each resample draws each image, for blocks of at most `num_rows` resamples; each row adds up to N."""
    rng = np.random.Generator(np.random.PCG64(seed))
    for start in range(0, num_resamples, num_rows):
        rows = min(num_rows, num_resamples - start)
        drawn = rng.integers(0, num_images, (rows, num_images))
        drawn += num_images * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * num_images)
        yield times.reshape(rows, num_images).astype(np.float64)


def intervals(samples: Float64[np.ndarray, "b s"], confidence: float = CONFIDENCE) -> list[Interval | None]:
    """Return the percentile interval of each score; resamples without the score (NaN) are left out, and without any it is None."""
    outside = 100 * (1 - confidence) / 2
    found: list[Interval | None] = []
    for column in samples.T:
        defined = column[~np.isnan(column)]
        bounds = np.percentile(defined, [outside, 100 - outside]) if len(defined) else None
        found.append(None if bounds is None else Interval(float(bounds[0]), float(bounds[1])))
    return found


def rarest_classes(labeled: Int64[np.ndarray, "c"], number: int = 3) -> list[int]:
    """Return the classes with the fewest labeled pixels, the rarest first; classes without any are left out."""
    order = np.argsort(labeled, kind="stable")
    return [int(i) for i in order if labeled[i] > 0][:number]


def _mean_over_runs(values: Sequence[np.ndarray]) -> np.ndarray:
    return values[0] if len(values) == 1 else mean_of_defined(np.stack(values, -1))


def _ratio(part: np.ndarray | np.number, whole: np.ndarray | np.number) -> np.ndarray:
    """Divide; NaN where the divisor is 0."""
    is_defined = whole > 0
    return np.where(is_defined, part / np.where(is_defined, whole, 1), np.nan)
