"""The record of a search, `trials.json`: what is searched, and what became of each trial. It is all that a resume needs."""

import enum
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pyrseg_jax.errors import UserError
from pyrseg_jax.run import keys
from pyrseg_jax.run.config import Config, from_json, to_values
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.training.scores import METRICS
from pyrseg_jax.tuning.space import Parameter, Space

TRIALS = "trials.json"
ADVICE = "restore the file, or use another --output"
VERSION = 1
# Keys that change neither what is trained nor what is scored, so that a search may be resumed with other values.
NEUTRAL = (
    "data.root", "data.prepared", "data.workers", "training.log_every", "training.save_every", "training.stall_s",
    "training.profile", "training.keep_last", "evaluation.batch_size", "evaluation.analysis", "evaluation.num_pictures",
    "model.remat", "parallel.data", "parallel.spatial", "parallel.shard_state",
)  # fmt: skip

Step = Annotated[int, Field(ge=0)]


class State(enum.StrEnum):
    """What became of a trial."""

    RUNNING = "running"  # also: interrupted, and to be continued
    COMPLETE = "complete"
    PRUNED = "pruned"  # stopped early, because it was worse than others at the same step
    FAILED = "failed"


class Trial(documents.Document):
    """A trial.

    number: counts from 0.
    state: what became of it.
    parameters: the values of the varied keys; choices as texts.
    scores: the score of each evaluation, by step.
    score, step: the best of these, if the trial is complete.
    reason: why it failed or was pruned.
    seconds: the time that its training took, over all parts.
    """

    number: Annotated[int, Field(ge=0)]
    state: State
    parameters: dict[str, Parameter]
    scores: dict[Step, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    step: Step | None = None
    reason: str = ""
    seconds: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _check_score(self) -> "Trial":
        if self.state is State.COMPLETE and (self.score is None or self.step is None):
            raise ValueError("expected a score and its step, because the trial is complete")
        return self

    @property
    def name(self) -> str:
        """Return the name of the trial's folder."""
        return f"trial-{self.number:03d}"


class StoredSearch(documents.Document):
    """The content of `trials.json`.

    version: of this schema.
    config: the configuration that the trials start from.
    metric: the score that is searched for, a key of `training.scores.METRICS`.
    space: the values of each varied key, as `--vary` takes them.
    best: number of the best trial, if one is complete.
    """

    version: Literal[1] = VERSION
    config: dict[str, Any]
    metric: str
    space: dict[str, str]
    best: int | None = None
    trials: list[Trial] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_trials(self) -> "StoredSearch":
        for i, trial in enumerate(self.trials):
            if trial.number != i:
                raise ValueError(f"expected the trials in order, and number {i} instead of {trial.number}")
            if trial.parameters.keys() != self.space.keys():
                raise ValueError(f"expected values of {', '.join(self.space)} in trial {i}")
            if trial.state is State.RUNNING and i != len(self.trials) - 1:
                raise ValueError(f"expected that trial {i} has ended, because there are later ones")
        return self


def best_of(trials: Sequence[Trial], metric: str) -> Trial | None:
    """Return the complete trial with the best score, among equals the first; None if none is complete."""
    found = [trial for trial in trials if trial.state is State.COMPLETE]
    sign = 1 if METRICS[metric].is_higher_better else -1
    return max(found, key=lambda trial: sign * _score_of(trial), default=None)


def _score_of(trial: Trial) -> float:
    assert trial.score is not None  # the schema says so of complete trials
    return trial.score


def best_step(scores: Mapping[int, float], metric: str) -> int:
    """Return the step with the best score, among equals the newest, as a run keeps its best checkpoint."""
    sign = 1 if METRICS[metric].is_higher_better else -1
    return max(scores, key=lambda step: (sign * scores[step], step))


class Store:
    """The record of one search.

    Args:
      folder: the folder of the search, which exists.
      config: the configuration that the trials start from.
      space: the values of each varied key.

    Raises:
      UserError: if the folder holds the record of another search, which the message compares, or one that cannot be read.
    """

    def __init__(self, folder: Path, config: Config, space: Space):
        self.folder, self.metric = folder, config.training.best_metric
        self._config, self._space = to_values(config), {name: values.text for name, values in space.items()}
        self._path = folder / TRIALS
        self.trials: list[Trial] = []
        if self._path.exists():
            stored = documents.read_json(self._path, StoredSearch, ADVICE)
            found = _differences(stored, from_json(json.dumps(stored.config), str(self._path)), config, self._space)
            if found:
                raise UserError(
                    f"{folder} holds another search: {'; '.join(found)}; use another --output, or the values of that search"
                )
            self.trials = list(stored.trials)

    @property
    def best(self) -> Trial | None:
        """Return the best complete trial."""
        return best_of(self.trials, self.metric)

    def put(self, trial: Trial) -> None:
        """Add a trial or replace the one of its number, and write the record.

        Raises:
          UserError: if it cannot be written.
        """
        self.trials[trial.number :] = [trial]
        self.write()

    def write(self) -> None:
        """Write the record; raises UserError if it cannot be written."""
        best = self.best
        content = StoredSearch(
            config=self._config,
            metric=self.metric,
            space=self._space,
            best=None if best is None else best.number,
            trials=self.trials,
        )
        try:
            write_atomically(self._path, json.dumps(content.model_dump(mode="json"), indent=1) + "\n")
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be written ({error.strerror or error}): make room or restore access, then start the same "
                "command again, which continues the search"
            ) from error


def _differences(stored: StoredSearch, before: Config, now: Config, space: dict[str, str]) -> list[str]:
    """List what a stored search and a command differ in."""
    found = []
    for name in sorted(stored.space.keys() | space.keys()):
        old, new = stored.space.get(name), space.get(name)
        if old != new:
            found.append(f"--vary={name}: {old or 'not varied'} → {new or 'not varied'}")
    for name in keys.keys_of(Config):
        old, new = keys.value_of(before, name), keys.value_of(now, name)
        # The start value of a varied key matters, too: it is what the first trial takes.
        if old != new and name not in NEUTRAL:
            found.append(f"config.{name}: {old!r} → {new!r}")
    return found
