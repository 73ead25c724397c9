"""The table and the plot of an ablation: `python -m pyrseg_jax.paper.ablation FOLDER`, as `launch/ablation.sh` leaves it.

FOLDER holds a run per row and seed, named ROW-SEED. Written into it: `ablation.md`, `ablation.json`, `ablation.png`, `.pdf`.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.paper.tables import COMPARISONS, TABLE_2A

MEASURES = {"miou": "mIoU", "boundary_miou": "boundary mIoU"}


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None for a single value) of a figure over seeds, in percent."""

    mean: float
    deviation: float | None
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, by_seed: Mapping[int, float]) -> "Spread":
        values = [100 * value for value in by_seed.values()]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), deviation, tuple(sorted(by_seed)))

    def text(self, sign: str = "") -> str:
        spread = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.mean:{sign}.2f}{spread}"


Results = dict[str, dict[int, dict]]


def read_results(folder: Path) -> Results:
    """Read row → seed → evaluation of the last step of every finished run.

    Raises:
      UserError: if there is none, or if runs differ in more than row and seed, so that they cannot stand in one table.
    """
    results: Results = {}
    settings: dict[str, str] = {}
    for run in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = re.fullmatch(r"([A-I])-(\d+)", run.name)
        if match is None or not (run / "finished").is_file():
            continue
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        split, steps = config["evaluation"]["split"], config["training"]["stop_after"] or config["training"]["steps"]
        path = run / "evaluation" / f"{split}-{steps}.json"
        if not path.is_file():
            raise UserError(f"{path} is missing, though {run} was finished: remove that folder and run it again")
        settings[run.name] = _what_must_agree(config)
        results.setdefault(match[1], {})[int(match[2])] = json.loads(path.read_text(encoding="utf-8"))
    if not results:
        raise UserError(
            f"{folder} holds no finished run: expected folders named ROW-SEED, as launch/ablation.sh makes them"
        )
    others = [name for name in settings if settings[name] != settings[min(settings)]]
    if others:
        raise UserError(
            f"{folder}: the runs {min(settings)} and {others[0]} differ in more than row and seed (compare their config.json): "
            "keep one table's runs in one folder"
        )
    return results


def _what_must_agree(config: dict) -> str:
    free = {"context", "representation", "procedure", "auxiliary_weight", "workers", "root", "prepared"}
    groups = {name: group for name, group in config.items() if isinstance(group, dict) and name != "parallel"}
    return json.dumps(
        {name: {k: v for k, v in g.items() if k not in free} for name, g in groups.items()}, sort_keys=True
    )


def spreads(results: Results, measure: str) -> dict[str, Spread]:
    """Return row → mean and deviation over its seeds; a row without this measure is left out."""
    found = {}
    for row, by_seed in sorted(results.items()):
        values = {seed: result[measure] for seed, result in by_seed.items() if result.get(measure) is not None}
        if values:
            found[row] = Spread.of(values)
    return found


def differences(results: Results, measure: str) -> dict[str, Spread]:
    """Return, for the pairs of rows that the paper compares, second minus first, over the seeds that both have.

    The same seed means the same images in the same order, so that the deviation is that of the pairs.
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


def markdown(results: Results) -> str:
    """Lay out rows and differences as two Markdown tables, with the paper's numbers beside."""
    by_measure = {measure: spreads(results, measure) for measure in MEASURES}
    lines = [
        "| row | context, representation, procedure | seeds | mIoU | boundary mIoU | paper's mIoU |",
        "|---|---|---|---|---|---|",
    ]
    for row, spread in by_measure["miou"].items():
        boundary = by_measure["boundary_miou"].get(row)
        lines.append(
            f"| {row} | {TABLE_2A[row].describe()} | {len(spread.seeds)} | {spread.text()} | "
            f"{boundary.text() if boundary else '–'} | {TABLE_2A[row].paper_miou:.2f} |"
        )
    lines += ["", "| rows | mIoU | boundary mIoU | paper's mIoU |", "|---|---|---|---|"]
    of_boundary = differences(results, "boundary_miou")
    for pair, spread in differences(results, "miou").items():
        paper = TABLE_2A[pair[1]].paper_miou - TABLE_2A[pair[0]].paper_miou
        boundary = of_boundary[pair].text("+") if pair in of_boundary else "–"
        lines.append(f"| {pair[0]} → {pair[1]} | {spread.text('+')} | {boundary} | {paper:+.2f} |")
    lines += ["", "Percent, mean ± sample standard deviation over seeds; differences are of runs with the same seed."]
    return "\n".join(lines) + "\n"


def write(folder: Path) -> str:
    """Write table, figures and plot of the finished runs in `folder`; return the table."""
    from pyrseg_jax.reporting.ablation_figure import draw_ablation

    results = read_results(folder)
    table = markdown(results)
    (folder / "ablation.md").write_text(table, encoding="utf-8")
    figures = {
        measure: {
            "rows": {row: dataclasses.asdict(s) for row, s in spreads(results, measure).items()},
            "differences": {pair: dataclasses.asdict(s) for pair, s in differences(results, measure).items()},
        }
        for measure in MEASURES
    }
    (folder / "ablation.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    values = {
        row: [100 * r["miou"] for r in by_seed.values() if r["miou"] is not None]
        for row, by_seed in sorted(results.items())
    }
    paper = {row: TABLE_2A[row].paper_miou for row in values}
    draw_ablation(folder / "ablation", values, paper, {row: TABLE_2A[row].describe() for row in values})
    return table


def main(arguments: Sequence[str]) -> int:
    """Write what belongs to the folder that is named; print the table."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m pyrseg_jax.paper.ablation FOLDER", file=sys.stderr)
        return 1
    try:
        print(write(Path(arguments[0])))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
