"""The search: one trial after another, until there are enough; each can be interrupted and goes on with the same command."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.run import keys
from pyrseg_jax.run.config import Config
from pyrseg_jax.tuning.space import Parameter, Parameters, changes_of
from pyrseg_jax.tuning.store import State, Store, Trial, best_step
from pyrseg_jax.tuning.suggest import Suggester
from pyrseg_jax.tuning.training import (
    STOPPED,
    Progress,
    Start,
    Training,
    keep_newest_checkpoint,
    read_progress,
    reason_of_failure,
)

log = logging.getLogger(__name__)

POLL_S = 1.0  # how often the scores of a running trial are read; evaluations take longer
NUM_EQUAL_FAILURES = 3  # at the start, after which the search ends: the next trials would fail, too
_SAID = {State.FAILED: "failed", State.PRUNED: "was pruned"}


@dataclasses.dataclass
class Search:
    """A search; `run()` carries it out.

    Attributes:
      store: the record, with the trials so far.
      suggester: the source of the values of each trial.
      first: the values of the first trial; None: they are suggested, too.
      resolve: changes of keys → the configuration with these changes.
      arguments: of the command line of each training, without those of the trial.
      start: starts a training.
      num_trials: trials to make, all together.
      is_pruning: whether hopeless trials are stopped early.
      keeps_checkpoints: whether trials that are not the best keep more than their newest checkpoint.
      after_trial: called when a trial has ended.
      read: reads how far the training in a folder has come, by a score.
    """

    store: Store
    suggester: Suggester
    first: Parameters | None
    resolve: Callable[[Mapping[str, Any]], Config]
    arguments: tuple[str, ...]
    start: Start
    num_trials: int
    is_pruning: bool = True
    keeps_checkpoints: bool = False
    after_trial: Callable[[], None] = lambda: None
    read: Callable[[Path, str], Progress] = read_progress

    def run(self) -> Trial:
        """Make the trials that are still to be made, and return the best of all.

        Raises:
          UserError: if no trial is complete in the end, or the first ones of this call all failed alike.
        """
        failures: list[str] = []
        has_succeeded = False
        while (trial := self._next()) is not None:
            trial = self._finish(trial)
            failures += [trial.reason.replace(trial.name, "")] if trial.state is State.FAILED else []
            has_succeeded = has_succeeded or trial.state is not State.FAILED
            if not has_succeeded and len(failures) >= NUM_EQUAL_FAILURES and len(set(failures)) == 1:
                raise UserError(
                    f"{self.store.folder}: {len(failures)} trials failed one after another in the same way: {trial.reason}; "
                    "correct that, then start the same command again, or search in another --output"
                )
        best = self.store.best
        if best is None:
            reason = next((trial.reason for trial in self.store.trials if trial.reason), "")
            raise UserError(
                f"{self.store.folder}: no trial was complete in the end, the first because of this: {reason}"
            )
        return best

    def _next(self) -> Trial | None:
        """Return the trial to train: the one that was interrupted, or a new one; None if there are enough."""
        trials = self.store.trials
        if trials and trials[-1].state is State.RUNNING:
            log.info("trial %d goes on: %s", trials[-1].number, describe(trials[-1].parameters))
            return trials[-1]
        if len(trials) >= self.num_trials:
            return None
        is_first = not trials and self.first is not None
        parameters = dict(self.first or {}) if is_first else self.suggester.suggest(trials)
        trial = Trial(number=len(trials), state=State.RUNNING, parameters=parameters)
        self.store.put(trial)
        note = " (the values of the config)" if is_first else ""
        log.info("trial %d of %d: %s%s", trial.number, self.num_trials, describe(parameters), note)
        return trial

    def _finish(self, trial: Trial) -> Trial:
        """Train a trial to its end, record it, and clean up behind it."""
        trial = self._train(trial)
        if trial.state is State.COMPLETE:
            trial = self._with_best_score(trial)
        self.store.put(trial)
        best = self.store.best
        if trial.state is State.COMPLETE and best is not None:
            others = f"the best is {best.score:.4f} of trial {best.number}" if best != trial else "the best so far"
            log.info(
                "trial %d: %s %.4f at step %s; %s", trial.number, self.store.metric, trial.score, trial.step, others
            )
        else:
            log.info("trial %d %s: %s", trial.number, _SAID[trial.state], escaped(trial.reason))
        if not self.keeps_checkpoints:
            for other in self.store.trials:
                if best is None or other.number != best.number:
                    keep_newest_checkpoint(self.store.folder / other.name)
        self.after_trial()
        return trial

    def _with_best_score(self, trial: Trial) -> Trial:
        if not trial.scores:
            reason = f"none of its evaluations gave a {self.store.metric}"
            return trial.model_copy(update={"state": State.FAILED, "reason": reason})
        step = best_step(trial.scores, self.store.metric)
        return trial.model_copy(update={"score": trial.scores[step], "step": step})

    def _train(self, trial: Trial) -> Trial:
        """Start or continue the training of a trial, and watch it until it ends."""
        try:
            self.resolve(changes_of(trial.parameters))
        except UserError as error:  # each value is right for itself, but not with the others
            return trial.model_copy(update={"state": State.FAILED, "reason": str(error)})
        watch = _Watch(self, trial)
        if watch.look() is not None:  # it was interrupted before it could be judged
            return watch.trial
        folder = self.store.folder / trial.name
        training = self.start([*self.arguments, *flags_of(trial.parameters), f"--workdir={folder}"], self.log_of(trial))
        try:
            status = watch.until_end(training)
        except BaseException as error:
            training.stop()
            self.store.put(watch.timed())
            error.add_note(f"trial {trial.number} has saved its state")
            raise
        return self._judge(watch.timed(), status)

    def _judge(self, trial: Trial, status: int) -> Trial:
        if trial.state is State.PRUNED:
            return trial
        if status == 0:
            return trial.model_copy(update={"state": State.COMPLETE})
        if status in STOPPED:
            self.store.put(trial)
            raise UserError(
                f"{self.store.folder / trial.name}: a signal ended this training, and its state is saved: start the same command "
                "again to continue"
            )
        return trial.model_copy(update={"state": State.FAILED, "reason": reason_of_failure(status, self.log_of(trial))})

    def log_of(self, trial: Trial) -> Path:
        """Return the file of a trial's log."""
        return self.store.folder / f"{trial.name}.log"


class _Watch:
    """Follows a running trial: notes its scores, and decides after each whether it is hopeless."""

    def __init__(self, search: Search, trial: Trial):
        self._search, self.trial = search, trial
        self._folder = search.store.folder / trial.name
        self._before_s, self._start = trial.seconds, time.monotonic()

    def until_end(self, training: Training) -> int:
        """Wait until the training ends, or stop it if it is hopeless; return its exit status."""
        while (status := training.wait(POLL_S)) is None:
            if self.look() is not None:
                status = training.stop()
                if status == 0:  # it came to its end before the signal did
                    self.trial = self.trial.model_copy(update={"state": State.RUNNING, "reason": ""})
                break
        if self.trial.state is State.RUNNING:
            self._note(self._search.read(self._folder, self._search.store.metric).scores)
        return status

    def look(self) -> str | None:
        """Note the new scores; return why the trial is pruned, or None."""
        search = self._search
        progress = search.read(self._folder, search.store.metric)
        known = max(self.trial.scores, default=-1)
        for step in sorted(step for step in progress.scores if step > known):
            self._note({step: progress.scores[step]})
            # After its last step there is nothing left to save by stopping it.
            if not search.is_pruning or progress.last_step is None or step >= progress.last_step:
                continue
            if search.suggester.is_hopeless(search.store.trials[:-1], self.trial.parameters, self.trial.scores):
                reason = f"worse than the median of the trials before it at step {step}"
                self.trial = self.trial.model_copy(update={"state": State.PRUNED, "reason": reason})
                return reason
        return None

    def timed(self) -> Trial:
        """Return the trial with the seconds that it took."""
        seconds = self._before_s + time.monotonic() - self._start
        return self.trial.model_copy(update={"seconds": round(seconds, 1)})

    def _note(self, scores: Mapping[int, float]) -> None:
        merged = dict(sorted({**self.trial.scores, **scores}.items()))
        if merged != self.trial.scores:
            self.trial = self.trial.model_copy(update={"scores": merged})
            self._search.store.put(self.trial)


def flags_of(parameters: Parameters) -> list[str]:
    """Return the flags that set the values of a trial."""
    return [f"--config.{name}={keys.to_text(value)}" for name, value in changes_of(parameters).items()]


def describe(parameters: Parameters) -> str:
    """Write the values of a trial in one line."""
    return ", ".join(f"{name}={shown(value)}" for name, value in parameters.items())


def shown(value: Parameter) -> str:
    """Write a value for people: numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
