"""Write the results of an ablation: `ablation.md`, `ablation.json`, `ablation.png` and `ablation.pdf`."""

import dataclasses
import json
from pathlib import Path

from pyrseg_jax.paper.ablation.results import Results, read_results
from pyrseg_jax.paper.ablation.statistics import difference_spreads, row_spreads
from pyrseg_jax.paper.ablation.table import format_tables
from pyrseg_jax.paper.tables import TABLE_2A
from pyrseg_jax.reporting.ablation_figure import draw_ablation

MEASURES = ("miou", "boundary_miou")  # keys of an evaluation's JSON


def write_ablation(folder: Path) -> str:
    """Write tables, statistics and plot of the finished runs in `folder` into it.

    Returns:
      The tables, as Markdown.

    Raises:
      UserError: as `read_results`.
    """
    results = read_results(folder)
    tables = format_tables(results)
    (folder / "ablation.md").write_text(tables, encoding="utf-8")
    figures = json.dumps(_statistics(results), indent=2)
    (folder / "ablation.json").write_text(figures + "\n", encoding="utf-8")
    values = {
        row: [100 * result["miou"] for result in by_seed.values() if result["miou"] is not None]
        for row, by_seed in sorted(results.items())
    }
    paper = {row: TABLE_2A[row].paper_miou for row in values}
    draw_ablation(folder / "ablation", values, paper, {row: TABLE_2A[row].describe() for row in values})
    return tables


def _statistics(results: Results) -> dict:
    """Return, per measure, `rows` and `differences` with the fields of `Spread`."""
    return {
        measure: {
            "rows": {row: dataclasses.asdict(spread) for row, spread in row_spreads(results, measure).items()},
            "differences": {
                pair: dataclasses.asdict(spread) for pair, spread in difference_spreads(results, measure).items()
            },
        }
        for measure in MEASURES
    }
