"""Read the results of an ablation from the folders of its runs."""

import json
import re
from pathlib import Path

from pydantic import ConfigDict

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage import documents

# Row → seed → the evaluation of the last step, as in its JSON file.
Results = dict[str, dict[int, dict]]

# The keys that the rows of Table 2a set, and those that do not change a result. All others must be the same in one table.
ROW_KEYS = {"context", "representation", "procedure", "auxiliary_weight"}
NEUTRAL_KEYS = {"workers", "root", "prepared"}

ADVICE = "remove the folder of this run and run it again"


class _Open(documents.Document):
    """A part of a document: other keys are kept, whatever they are."""

    model_config = ConfigDict(frozen=True, extra="allow")


class TrainingKeys(_Open):
    """The length of a training."""

    steps: int
    stop_after: int | None


class EvaluationKeys(_Open):
    """The split that is evaluated."""

    split: str


class RunConfig(_Open):
    """The fields of a run's config.json that a table needs."""

    training: TrainingKeys
    evaluation: EvaluationKeys


class Evaluation(_Open):
    """The fields of an evaluation that a table needs."""

    miou: float | None


def read_results(folder: Path) -> Results:
    """Read the evaluation of the last step of every finished run.

    Args:
      folder: a folder with a subfolder ROW-SEED for each run, as `launch/ablation.sh` creates them. Unfinished runs are skipped.

    Raises:
      UserError: if there is no finished run, an evaluation is missing, or runs differ in more than their row and seed, so that
        they cannot stand in one table.
    """
    results: Results = {}
    settings: dict[str, str] = {}
    for run in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = re.fullmatch(r"([A-I])-(\d+)", run.name)
        if match is None or not (run / "finished").is_file():
            continue
        config = documents.read_json(run / "config.json", RunConfig, ADVICE)
        split, steps = config.evaluation.split, config.training.stop_after or config.training.steps
        path = run / "evaluation" / f"{split}-{steps}.json"
        if not path.is_file():
            raise UserError(f"{path} is missing, although {run} is finished: remove that folder and run it again")
        settings[run.name] = _shared_settings(config.model_dump())
        results.setdefault(match[1], {})[int(match[2])] = documents.read_json(path, Evaluation, ADVICE).model_dump()
    if not results:
        raise UserError(
            f"{folder} holds no finished run: expected folders named ROW-SEED, as launch/ablation.sh makes them"
        )
    _check_settings(folder, settings)
    return results


def _check_settings(folder: Path, settings: dict[str, str]) -> None:
    first = min(settings)
    others = [name for name in settings if settings[name] != settings[first]]
    if others:
        raise UserError(
            f"{folder}: the runs {first} and {others[0]} differ in more than row and seed (compare their config.json): keep the "
            "runs of one table in one folder"
        )


def _shared_settings(config: dict) -> str:
    """Return the keys that must be the same in all runs, as text to compare; how the work is split over devices is not."""
    groups = {
        name: group for name, group in config.items() if isinstance(group, dict) and name not in ("parallel", "said")
    }
    ignored = ROW_KEYS | NEUTRAL_KEYS
    return json.dumps(
        {name: {k: v for k, v in g.items() if k not in ignored} for name, g in groups.items()}, sort_keys=True
    )
