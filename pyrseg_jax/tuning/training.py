"""The training of one trial: how it is watched, and what its folder and its log tell of it."""

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.training.preemption import STATUS
from pyrseg_jax.training.scores import Scores

MAX_REASON = 300  # characters of a log's last line that a record repeats
_TAIL_BYTES = 8192  # of a log, in which its last line is looked for
# Statuses of a training that a signal has ended, and that the same command continues.
STOPPED = (STATUS, 128 + signal.SIGTERM, -signal.SIGTERM)


@runtime_checkable
class Training(Protocol):
    """A training that runs."""

    def wait(self, seconds: float) -> int | None:
        """Wait so long, or until it ends; return its exit status, negative for a signal, or None if it goes on."""
        ...

    def stop(self) -> int:
        """Let it save its state and end; return its exit status."""
        ...


# (the command's arguments, file of its log) → the training.
Start: TypeAlias = Callable[[Sequence[str], Path], Training]


class Progress(NamedTuple):
    """How far a trial has come: its scores by step, and its last step if that is known."""

    scores: dict[int, float]
    last_step: int | None = None


def read_progress(folder: Path, metric: str) -> Progress:
    """Read the scores of the run in a folder, which need not exist yet."""
    workdir = Workdir(str(folder))
    scores = dict(Scores(workdir.checkpoints / "scores.json", metric).by_step())
    if not scores:
        return Progress({})
    training = workdir.read_config().training
    return Progress(scores, _last_step(training.steps, training.stop_after))


def _last_step(steps: int | str, stop_after: int | str | None) -> int | None:
    """Return the step at which a training ends; None while its length is still a number of epochs."""
    found = [steps] if stop_after is None else [steps, stop_after]
    return None if any(isinstance(value, str) for value in found) else min(map(int, found))


def reason_of_failure(status: int, log: Path) -> str:
    """Say why a training failed: how it ended, if a signal ended it, and the last line of its log."""
    line = _last_line(log)
    if status >= 0:
        return line or f"its status was {status}, and it logged nothing"
    name = signal.Signals(-status).name
    killed = f"{name} ended it" + (", most likely because memory ran out" if name == "SIGKILL" else "")
    return f"{killed}; the last line of its log: {line}" if line else killed


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    line = escaped(lines[-1].strip()).removeprefix("error: ") if lines else ""
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"


def keep_newest_checkpoint(folder: Path) -> list[str]:
    """Remove all checkpoints of a run but the newest, and return the names of the removed ones.

    Raises:
      UserError: if one cannot be removed.
    """
    place = folder / "checkpoints"
    steps = sorted((int(entry.name), entry) for entry in _entries(place) if entry.name.isdecimal())
    for _, entry in steps[:-1]:
        try:
            shutil.rmtree(entry)
        except OSError as error:
            raise UserError(
                f"{entry} cannot be removed ({error.strerror or error}): restore access, or keep all checkpoints with --keep"
            ) from error
    return [entry.name for _, entry in steps[:-1]]


def _entries(place: Path) -> list[Path]:
    return [entry for entry in place.iterdir() if entry.is_dir() and not entry.is_symlink()] if place.is_dir() else []
