"""What a search leaves for people: `trials.md`, the plot `trials.png`, and the command line of the best trial."""

import dataclasses
import logging
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from pyrseg_jax.errors import escaped
from pyrseg_jax.reporting.search_figure import Axis, Outcome, draw_search
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.training.scores import METRICS
from pyrseg_jax.tuning.search import flags_of, shown
from pyrseg_jax.tuning.space import Range, Space
from pyrseg_jax.tuning.store import State, Store, Trial
from pyrseg_jax.tuning.suggest import Suggester

log = logging.getLogger(__name__)

TABLE, FIGURE = "trials.md", "trials.png"


def command_of(trial: Trial, arguments: Sequence[str], workdir: str) -> str:
    """Return the command line that trains with the values of a trial.

    Args:
      trial: the trial.
      arguments: those that all trials share.
      workdir: the folder of the run.
    """
    return shlex.join(["pyrseg", *arguments, *flags_of(trial.parameters), f"--workdir={workdir}"])


@dataclasses.dataclass(frozen=True)
class Results:
    """Writes everything that a search leaves for people and for Optuna's tools.

    Attributes:
      store: the record.
      space: the values by key.
      arguments: of the command line, which all trials share.
      split: the split that they are scored on.
      suggester: writes the journal for Optuna's tools.
      draw: draws the figure.
    """

    store: Store
    space: Space
    arguments: Sequence[str]
    split: str
    suggester: Suggester
    draw: Callable[[Store, Space], None]

    def write(self) -> None:
        """Write the files. If that fails, a warning says so, and they are written again after the next trial."""
        try:
            write_table(self.store, self.arguments, self.split)
            self.draw(self.store, self.space)
            self.suggester.write_journal(self.store.folder, self.store.trials)
        except OSError as error:
            log.warning("%s: results could not be written (%s)", self.store.folder, error.strerror or error)


def write_table(store: Store, arguments: Sequence[str], split: str) -> None:
    """Write `trials.md`: every trial in a line, and the command line of the best one.

    Raises:
      OSError: if it cannot be written.
    """
    names = sorted({name for trial in store.trials for name in trial.parameters})
    best = store.best
    better = "more" if METRICS[store.metric].is_higher_better else "less"
    lines = [
        "# Trials",
        "",
        f"Score: `{store.metric}` on the split `{split}`, the best evaluation of each trial; {better} is better.",
        "",
        _row(["trial", "state", store.metric, "step", *(f"`{name}`" for name in names), "minutes", "why"]),
        _row(["---"] * (len(names) + 6)),
        *(_row(_cells(trial, names, trial is best)) for trial in store.trials),
        "",
    ]
    if best is not None:
        command = command_of(best, arguments, str(store.folder / best.name))
        lines += [
            f"The best is trial {best.number}. This command continues it, or repeats it elsewhere with another --workdir:"
        ]
        lines += ["", "```bash", command, "```", ""]
    write_atomically(store.folder / TABLE, "\n".join(lines))


def _cells(trial: Trial, names: Sequence[str], is_best: bool) -> list[str]:
    score = "" if trial.score is None else f"{trial.score:.4f}"
    values = [shown(trial.parameters[name]) for name in names]
    marked = f"**{score}**" if is_best else score
    step = "" if trial.step is None else str(trial.step)
    return [str(trial.number), trial.state.value, marked, step, *values, f"{trial.seconds / 60:.1f}", trial.reason]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escaped(cell).replace("|", "\\|") for cell in cells) + " |"


def write_figure(store: Store, space: Space) -> None:
    """Draw the history of the search and the score over the values of each key, unless no trial has a score."""
    outcomes = [_outcome(trial) for trial in store.trials if trial.state is not State.RUNNING]
    if any(outcome.score is not None for outcome in outcomes):
        axes = [_axis(name, values) for name, values in space.items()]
        draw_search(Path(store.folder / FIGURE), store.metric, METRICS[store.metric].is_higher_better, outcomes, axes)


def _outcome(trial: Trial) -> Outcome:
    is_complete, score = trial.state is State.COMPLETE, trial.score
    if trial.state is State.PRUNED and trial.scores:  # it is drawn at its last score, because it ended there
        score = trial.scores[max(trial.scores)]
    return Outcome(trial.number, score, is_complete, trial.parameters)


def _axis(name: str, values: object) -> Axis:
    if isinstance(values, Range):
        return Axis(name, is_log=values.is_log)
    return Axis(name, choices=getattr(values, "texts", ()))
