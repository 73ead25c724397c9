"""Write the results of an ablation: `ablation.md`, `ablation.json`, `ablation.png` and `ablation.pdf`."""

import dataclasses
import json
import logging
from pathlib import Path

from pyrseg_jax.errors import reason_of
from pyrseg_jax.paper.ablation.results import Results
from pyrseg_jax.paper.ablation.statistics import difference_spreads, mean_shares, row_spreads
from pyrseg_jax.paper.ablation.table import describe, format_tables, paper_miou
from pyrseg_jax.reporting.ablation_figure import draw_ablation
from pyrseg_jax.storage.atomic import write_atomically

log = logging.getLogger(__name__)

MEASURES = ("miou", "boundary_miou")  # keys of an evaluation's JSON


def write_ablation(folder: Path, results: Results) -> None:
    """Write tables, statistics and plot of an ablation into its folder. A plot that cannot be drawn costs only the plot.

    Args:
      folder: the folder of the ablation.
      results: what `read_results` found in it.

    Raises:
      OSError: if a file cannot be written.
    """
    write_atomically(folder / "ablation.md", format_tables(results))
    write_atomically(folder / "ablation.json", json.dumps(_statistics(results), indent=2) + "\n")
    values = {
        row: [100 * result["miou"] for result in by_seed.values() if result["miou"] is not None]
        for row, by_seed in sorted(results.items())
    }
    paper = {row: miou for row in values if (miou := paper_miou(row)) is not None}
    try:
        draw_ablation(folder / "ablation", values, paper, {row: describe(row) for row in values})
    except Exception as error:  # Matplotlib raises errors of any type
        log.warning("the plot could not be drawn (%s); the tables are complete without it", reason_of(error))


def pair_name(pair: tuple[str, str]) -> str:
    """Return the name of a difference: "AF" for rows of Table 2a, "danet → danet+pyramid" for methods."""
    return "".join(pair) if max(map(len, pair)) == 1 else " → ".join(pair)


def _statistics(results: Results) -> dict:
    """Return, per measure, `rows` and `differences` with the fields of `Spread`; and the share of the levels by row."""
    shares = {row: mean_shares(by_seed) for row, by_seed in sorted(results.items())}
    return {
        measure: {
            "rows": {row: dataclasses.asdict(spread) for row, spread in row_spreads(results, measure).items()},
            "differences": {
                pair_name(pair): dataclasses.asdict(spread)
                for pair, spread in difference_spreads(results, measure).items()
            },
        }
        for measure in MEASURES
    } | {"level_share": {row: share for row, share in shares.items() if share}}
