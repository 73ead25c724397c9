"""Suggest the values of a trial, and recognize hopeless ones, with Optuna. No other file imports it."""

import hashlib
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.atomic import write_bytes_atomically
from pyrseg_jax.training.scores import METRICS
from pyrseg_jax.tuning.space import Parameter, Range, Space
from pyrseg_jax.tuning.store import State, Trial

JOURNAL = "optuna.log"
STUDY = "pyrseg"
# Chosen: half of Optuna's ten random trials come before its model does, because searches here have some dozens of trials.
NUM_RANDOM = 5
NUM_BEFORE_PRUNING = 5  # complete trials, as is Optuna's default


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "tune needs the package optuna, which is not installed: install the extra `tune` "
            "(`pip install 'pyrseg-jax[tune]'`)"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Suggester:
    """Suggests values with a tree-structured Parzen estimator (TPE), and prunes by the median rule.

    A suggestion is a function of the seed, the number of the trial, and the trials before it: each gets a sampler of its own. So a
    search that was interrupted goes on as if it had not been.

    Args:
      space: the values by key.
      metric: the score, a key of `training.scores.METRICS`.
      seed: the seed of the random choices.

    Raises:
      UserError: if Optuna is not installed.
    """

    def __init__(self, space: Space, metric: str, seed: int):
        self._optuna = _import_optuna()
        self._seed = seed
        self._direction = "maximize" if METRICS[metric].is_higher_better else "minimize"
        self._distributions = {name: self._distribution(values) for name, values in space.items()}

    def suggest(self, trials: Sequence[Trial]) -> dict[str, Parameter]:
        """Suggest the values of the trial that follows these, none of which is running."""
        digest = hashlib.sha256(f"{self._seed}:{len(trials)}".encode()).digest()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            sampler = self._optuna.samplers.TPESampler(
                n_startup_trials=NUM_RANDOM, multivariate=True, seed=int.from_bytes(digest[:4], "little")
            )
            study = self._study(trials, sampler=sampler)
            asked = study.ask(self._distributions)
        return {name: asked.params[name] for name in self._distributions}

    def is_hopeless(
        self, trials: Sequence[Trial], parameters: Mapping[str, Parameter], scores: Mapping[int, float]
    ) -> bool:
        """Return whether a running trial is worse than the median of the complete ones.

        Its best score so far is compared with their scores at its last step.

        Args:
          trials: the trials before it.
          parameters: its values.
          scores: its scores so far, by step.

        Source: the median stopping rule of Golovin et al., "Google Vizier" (KDD 2017), Sec. 3.2.1, in Optuna's form.
        """
        pruner = self._optuna.pruners.MedianPruner(n_startup_trials=NUM_BEFORE_PRUNING)
        running = self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING,
            params=dict(parameters),
            distributions=self._distributions,
            intermediate_values=dict(scores),
        )
        return bool(pruner.prune(self._study(trials), running))

    def write_journal(self, folder: Path, trials: Sequence[Trial]) -> None:
        """Write the trials that have ended as `optuna.log`, a journal that Optuna's own tools open.

        Raises:
          OSError: if it cannot be written.
        """
        journal = self._optuna.storages.journal
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / JOURNAL
            storage = self._optuna.storages.JournalStorage(journal.JournalFileBackend(str(file)))
            self._study(trials, storage=storage, study_name=STUDY)
            write_bytes_atomically(folder / JOURNAL, file.read_bytes())

    def _distribution(self, values: Any) -> Any:
        kinds = self._optuna.distributions
        if not isinstance(values, Range):
            return kinds.CategoricalDistribution(values.texts)
        kind = kinds.IntDistribution if values.is_integer else kinds.FloatDistribution
        return kind(values.low, values.high, log=values.is_log)

    def _study(self, trials: Sequence[Trial], **arguments: Any) -> Any:
        """Return a study with the trials that have ended."""
        study = self._optuna.create_study(direction=self._direction, **arguments)
        study.add_trials([self._ended(trial) for trial in trials if trial.state is not State.RUNNING])
        return study

    def _ended(self, trial: Trial) -> Any:
        states = self._optuna.trial.TrialState
        kind = {State.COMPLETE: states.COMPLETE, State.PRUNED: states.PRUNED, State.FAILED: states.FAIL}[trial.state]
        last = trial.scores[max(trial.scores)] if trial.scores else None
        return self._optuna.trial.create_trial(
            state=kind,
            value={State.COMPLETE: trial.score, State.PRUNED: last}.get(trial.state),
            params=dict(trial.parameters),
            distributions=self._distributions,
            intermediate_values=dict(sorted(trial.scores.items())),
        )
