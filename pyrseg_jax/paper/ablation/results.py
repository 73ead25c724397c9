"""Read the results of an ablation from the folders of its runs."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from pyrseg_jax.errors import UserError
from pyrseg_jax.paper.variants import BACKBONES, METHODS, NETWORK_KEYS, PYRAMID, RECIPE_KEYS, RECIPES, ROWS
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.names import file_name_of

# Label → seed → the evaluation of the last step, as in its JSON file. A label is a letter of Table 2a, or the words of a method
# joined with "+", such as "danet+pyramid".
Results = dict[str, dict[int, dict]]

# The keys that the labels set, and those that do not change a result. All others must be the same in one table.
LABEL_KEYS = {"model.context", "model.representation", "training.procedure", *NETWORK_KEYS}
HARD_PIXEL_KEYS = {"training.ohem_threshold", "training.ohem_min_kept"}
NEUTRAL_KEYS = {"data.workers", "data.root", "data.prepared"}

ADVICE = "remove the folder of this run and run it again"


Score = Annotated[float, Field(ge=0, le=1)] | None


class Evaluation(documents.Document):
    """The fields of an evaluation that a table needs. Other keys are kept, whatever they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    miou: Score
    boundary_miou: Score = None
    level_share: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None


def read_results(folder: Path) -> Results:
    """Read the evaluation of the last step of every finished run.

    Args:
      folder: a folder with a subfolder LABEL-SEED for each run, as `launch/ablation.sh` creates them. Unfinished runs are skipped.

    Raises:
      UserError: if there is no finished run, an evaluation is missing, or runs differ in more than their label and seed, so that
        they cannot stand in one table.
    """
    results: Results = {}
    settings: dict[str, dict] = {}
    for run in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = re.fullmatch(r"(.+)-(\d+)", run.name)
        if match is None or not is_label(match[1]) or not (run / "finished").is_file():
            continue
        path = run / "config.json"
        config = config_lib.from_json(documents.read_document(path, ADVICE), str(path))
        steps = config.training.stop_after or config.training.steps
        path = run / "evaluation" / f"{file_name_of(config.evaluation.split)}-{steps}.json"
        if not path.exists():
            raise UserError(f"{path} is missing, although {run} is finished: remove that folder and run it again")
        settings[run.name] = config_lib.to_values(config)
        results.setdefault(match[1], {})[int(match[2])] = documents.read_json(path, Evaluation, ADVICE).model_dump()
    if not results:
        raise UserError(
            f"{folder} holds no finished run: expected folders named ROW-SEED or METHOD-SEED, as launch/ablation.sh makes them"
        )
    _check_settings(folder, settings)
    return results


def is_label(label: str) -> bool:
    """Tell whether a label stands for runs: a letter of Table 2a, or a method's words joined with "+"."""
    words = label.split("+")
    if len(words) == 1 and label in ROWS:
        return True
    return all(any(word in group for group in (METHODS, BACKBONES, RECIPES, PYRAMID)) for word in words)


def _check_settings(folder: Path, settings: Mapping[str, dict]) -> None:
    """Raise UserError if runs differ in a key that their labels do not set.

    The recipes of releases are compared only between runs of one label: on ResNets, each method has its own.
    """
    has_recipes = any(values["model"]["stem"] is not None for values in settings.values())
    has_recipes |= any(word in RECIPES for name in settings for word in name.rpartition("-")[0].split("+"))
    ignored = NEUTRAL_KEYS | LABEL_KEYS | HARD_PIXEL_KEYS | (set(RECIPE_KEYS) if has_recipes else set())
    labels: dict[str, str] = {}  # label → its first run
    for name in settings:
        labels.setdefault(name.rpartition("-")[0], name)
    first = min(settings)
    for name in settings:
        of_label = labels[name.rpartition("-")[0]]
        for other, keys in ((first, ignored), (of_label, NEUTRAL_KEYS)):
            if _shared(settings[name], keys) != _shared(settings[other], keys):
                raise UserError(
                    f"{folder}: the runs {other} and {name} differ in more than their label and seed (compare their config.json): "
                    "keep the runs of one table in one folder"
                )


def _shared(values: Mapping, ignored: Collection[str]) -> str:
    """Return the keys that must be the same, as text to compare; how the work is split over devices is not among them."""
    groups = {
        name: group for name, group in values.items() if isinstance(group, dict) and name not in ("parallel", "said")
    }
    kept = {f"{name}.{key}": value for name, group in groups.items() for key, value in group.items()}
    return json.dumps({key: value for key, value in kept.items() if key not in ignored}, sort_keys=True)
