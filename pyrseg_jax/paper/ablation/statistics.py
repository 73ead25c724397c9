"""Means and standard deviations over seeds, for the rows of an ablation and for their differences."""

import dataclasses
from collections.abc import Mapping

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
    """Return row → spread of a measure (a key of the evaluation's JSON); rows without the measure are left out."""
    found = {}
    for row, by_seed in sorted(results.items()):
        values = {seed: result[measure] for seed, result in by_seed.items() if result.get(measure) is not None}
        if values:
            found[row] = Spread.of(values)
    return found


def difference_spreads(results: Results, measure: str) -> dict[str, Spread]:
    """Return, for each pair of rows that the paper compares, the spread of second minus first.

    Only seeds that both rows have are used. Runs with the same seed see the same images in the same order, so the deviation is
    that of paired differences.

    Returns:
      Both letters, like `"AF"` → spread.
    """
    found = {}
    for first, second in COMPARISONS:
        common = results.get(first, {}).keys() & results.get(second, {}).keys()
        values = {
            seed: results[second][seed][measure] - results[first][seed][measure]
            for seed in sorted(common)
            if None not in (results[first][seed].get(measure), results[second][seed].get(measure))
        }
        if values:
            found[first + second] = Spread.of(values)
    return found
