"""Means and standard deviations over seeds, for the labels of an ablation and for their differences."""

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np

from pyrseg_jax.paper.ablation.results import Results
from pyrseg_jax.paper.tables import COMPARISONS


@dataclasses.dataclass(frozen=True)
class Spread:
    """The spread of a figure over seeds, in percent.

    Attributes:
      mean: the mean over the seeds.
      deviation: sample standard deviation; None for a single seed.
      seeds: the seeds, in order.
    """

    mean: float
    deviation: float | None
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, by_seed: Mapping[int, float]) -> "Spread":
        """Compute the spread of fractions (0 … 1), given by seed."""
        values = [100 * value for value in by_seed.values()]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), deviation, tuple(sorted(by_seed)))

    def text(self, sign: str = "") -> str:
        """Format as `mean ± deviation`; with `sign="+"` the mean always has a sign."""
        deviation = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.mean:{sign}.2f}{deviation}"


def row_spreads(results: Results, measure: str) -> dict[str, Spread]:
    """Return label → spread of a measure (a key of the evaluation's JSON); labels without the measure are left out."""
    found = {}
    for row, by_seed in sorted(results.items()):
        values = {seed: result[measure] for seed, result in by_seed.items() if result.get(measure) is not None}
        if values:
            found[row] = Spread.of(values)
    return found


def mean_shares(by_seed: Mapping[int, dict]) -> list[float]:
    """Return the share of the positions that each level decides, coarse → fine, in percent: the mean over seeds.

    Empty if a run does not say it or has a single level.
    """
    shares = [result.get("level_share") or () for result in by_seed.values()]
    if len({len(share) for share in shares}) != 1 or len(shares[0]) < 2:
        return []
    return [float(value) for value in 100 * np.mean(shares, axis=0)]


def compared(labels: Collection[str]) -> list[tuple[str, str]]:
    """Return the pairs of labels to compare: those of the paper's text, and each method with and without the pyramid."""
    pairs = [(first, second) for first, second in COMPARISONS]
    pairs += [(label, f"{label}+pyramid") for label in sorted(labels)]
    return [pair for pair in pairs if set(pair) <= set(labels)]


def difference_spreads(results: Results, measure: str) -> dict[tuple[str, str], Spread]:
    """Return, for each pair of labels to compare, the spread of second minus first.

    Only seeds that both labels have are used. Runs with the same seed see the same images in the same order, so the deviation is
    that of paired differences.

    Returns:
      Both labels, like `("A", "F")` or `("danet", "danet+pyramid")` → spread.
    """
    found = {}
    for first, second in compared(results.keys()):
        values = {
            seed: results[second][seed][measure] - results[first][seed][measure]
            for seed in sorted(results[first].keys() & results[second].keys())
            if None not in (results[first][seed].get(measure), results[second][seed].get(measure))
        }
        if values:
            found[first, second] = Spread.of(values)
    return found
