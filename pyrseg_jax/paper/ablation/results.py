"""Read the results of an ablation from the folders of its runs."""

import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.names import file_name_of

# Row → seed → the evaluation of the last step, as in its JSON file.
Results = dict[str, dict[int, dict]]

# The keys that the rows of Table 2a set, and those that do not change a result. All others must be the same in one table.
ROW_KEYS = {"context", "representation", "procedure", "auxiliary_weight"}
NEUTRAL_KEYS = {"workers", "root", "prepared"}

ADVICE = "remove the folder of this run and run it again"


Score = Annotated[float, Field(ge=0, le=1)] | None


class Evaluation(documents.Document):
    """The fields of an evaluation that a table needs. Other keys are kept, whatever they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    miou: Score
    boundary_miou: Score = None


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
        path = run / "config.json"
        config = config_lib.from_json(documents.read_document(path, ADVICE), str(path))
        steps = config.training.stop_after or config.training.steps
        path = run / "evaluation" / f"{file_name_of(config.evaluation.split)}-{steps}.json"
        if not path.exists():
            raise UserError(f"{path} is missing, although {run} is finished: remove that folder and run it again")
        settings[run.name] = _shared_settings(config_lib.to_values(config))
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
