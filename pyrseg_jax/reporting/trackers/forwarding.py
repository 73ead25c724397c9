"""The training's side of its trackers: append events, keep the trackers' processes running, and warn about them once."""

import io
import logging
import math
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath
from PIL import Image

from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.reporting.trackers import tracker_of
from pyrseg_jax.reporting.trackers.contract import About
from pyrseg_jax.reporting.trackers.spool import ABOUT, EVENTS, Event, Progress, read_progress, write_progress
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import write_atomically, write_bytes_atomically
from pyrseg_jax.storage.paths import is_remote

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
STUCK_S = 60.0  # without progress, after which a tracker is said to be stuck
CLOSE_S = 15.0  # that the end of a training waits for its trackers at most
JPEG_QUALITY = 88


class Tracked(NamedTuple):
    """What trackers are told about a run, and which ones.

    trackers: their names, see `trackers.tracker_of`.
    name: of the run.
    config: the configuration, by full key.
    classes: names of the classes.
    """

    trackers: tuple[str, ...]
    name: str
    config: Mapping[str, Any]
    classes: Sequence[str]


class _Child:
    """The process of a tracker, and what is known about it."""

    def __init__(self, name: str, folder: Path):
        self.name, self.is_blamed = name, False
        self.offset, self.moved_at = read_progress(folder, name).offset, time.monotonic()
        with (folder / f"{name}.log").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.process", tracker_of(name).module, name, str(folder)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C and the signals of schedulers are for the training
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )


class Trackers:
    """Forwards the record of a run to its trackers; no method raises or waits, except that `close` waits `close_s` at most.

    Args:
      tracked: the run.
      folder: `tracking/` in the run's folder, on a local disk; it is created if necessary.
      close_s: seconds.
    """

    def __init__(self, tracked: Tracked, folder: Path, close_s: float = CLOSE_S):
        self._folder, self._close_s, self._step, self._looked_at = folder, close_s, 0, time.monotonic()
        self._children: list[_Child] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            about = About(
                id=_known_id(folder) or uuid.uuid4().hex,
                name=tracked.name,
                config=dict(tracked.config),
                classes=tuple(tracked.classes),
            )
            write_atomically(folder / ABOUT, about.model_dump_json(indent=1) + "\n")
            if not (folder / EVENTS).exists():  # the record was uploaded and the rest was not: what is new begins at 0
                for name in tracked.trackers:
                    write_progress(folder, name, read_progress(folder, name).model_copy(update={"offset": 0}))
            self._events = (folder / EVENTS).open("ab")
        except OSError as error:
            self._events = io.BytesIO()
            log.warning("trackers are off: %s cannot be written (%s)", folder, error.strerror or error)
            return
        for name in tracked.trackers:
            try:
                self._children.append(_Child(name, folder))
            except OSError as error:
                log.warning("the tracker %s is off: its process cannot be started (%s)", name, error.strerror or error)
        names = ", ".join(child.name for child in self._children)
        log.info("trackers: %s, as the run %s; what they print is in %s", names, escaped(tracked.name), folder)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Forward numbers by name; what is not finite is left out."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._append(Event(kind="values", step=step, values=finite))

    def draw(self, step: int, pictures: Mapping[str, Image.Image]) -> None:
        """Forward pictures by name."""
        for number, (name, picture) in enumerate(pictures.items()):
            data = io.BytesIO()
            picture.save(data, "JPEG", quality=JPEG_QUALITY)
            file = f"{step}-{number}.jpg"
            try:
                write_bytes_atomically(self._folder / file, data.getbuffer())
            except OSError as error:
                self._stop(error)
                return
            self._append(Event(kind="picture", step=step, name=name, file=file))

    def close(self, is_finished: bool) -> None:
        """End this part of the run, and wait for the trackers to deliver the rest, `close_s` at most.

        Args:
          is_finished: whether the run is finished; otherwise it may be resumed.
        """
        self._append(Event(kind="end", step=self._step, is_finished=is_finished))
        for child in self._children:
            _close_input(child.process)
        until = time.monotonic() + self._close_s
        for child in self._children:
            try:
                child.process.wait(max(until - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            self._say_missed(child)
        self._children.clear()
        self._events.close()

    def _append(self, event: Event) -> None:
        self._step = max(self._step, event.step)
        try:
            self._events.write(event.model_dump_json(exclude_defaults=True, exclude_unset=True).encode() + b"\n")
            self._events.flush()
        except (OSError, ValueError) as error:
            self._stop(error)
            return
        if time.monotonic() > self._looked_at + LOOK_EVERY_S:
            self.look()

    def processes(self) -> tuple[subprocess.Popen, ...]:
        """Return the processes of the trackers."""
        return tuple(child.process for child in self._children)

    def look(self) -> None:
        """Warn, once each, about trackers that failed, ended, or do not move."""
        self._looked_at = now = time.monotonic()
        size = self._events.tell()
        for child in self._children:
            progress = read_progress(self._folder, child.name)
            if progress.offset != child.offset or progress.offset >= size:
                child.offset, child.moved_at = progress.offset, now
            problem = self._problem_of(child, progress, now)
            if problem is not None and not child.is_blamed:
                child.is_blamed = True
                log.warning("the tracker %s %s; the training goes on (%s)", child.name, problem, self._log_of(child))

    def _problem_of(self, child: _Child, progress: Progress, now: float) -> str | None:
        status = child.process.poll()
        if progress.problem is not None:
            again = "it is off" if status is not None else "it is tried again"
            return f"failed ({progress.problem}): {again}"
        if status is not None:
            return f"has ended (exit status {status}): it is off until the run is resumed"
        if now > child.moved_at + STUCK_S:
            return f"has not answered for {STUCK_S:.0f} s: what is written now is delivered once it does"
        return None

    def _say_missed(self, child: _Child) -> None:
        """Warn about what a tracker has not delivered at the end."""
        progress = read_progress(self._folder, child.name)
        num_missed = _count_lines(self._folder / EVENTS, progress.offset)
        if child.process.returncode or num_missed:
            reason = f" ({progress.problem})" if progress.problem else ""
            log.warning(
                "the tracker %s has not delivered %d of the last events%s: start the same command again to deliver them; %s",
                *(child.name, num_missed, reason, self._log_of(child)),
            )

    def _log_of(self, child: _Child) -> Path:
        return self._folder / f"{child.name}.log"

    def _stop(self, error: Exception) -> None:
        """Turn the trackers off, because events cannot be written."""
        log.warning("trackers are off: %s cannot be written (%s)", self._folder / EVENTS, error)
        for child in self._children:
            _close_input(child.process)
            child.process.kill()
            child.process.wait()
        self._children.clear()
        self._events = io.BytesIO()


def open_trackers(tracked: Tracked, place: epath.Path, folder: Path) -> Trackers:
    """Start the trackers of a run; those of a resumed run continue theirs.

    Args:
      tracked: the run.
      place: `tracking/` in the run's folder, perhaps in remote storage.
      folder: the same on a local disk, whose files are uploaded there.
    """
    if is_remote(place) and place.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        for file in place.glob("*.json"):
            (folder / file.name).write_bytes(file.read_bytes())
    return Trackers(tracked, folder)


def _known_id(folder: Path) -> str | None:
    try:
        return documents.read_json(folder / ABOUT, About).id
    except (UserError, OSError):
        return None


def _close_input(process: subprocess.Popen) -> None:
    """Close the standard input of a process, which may be gone."""
    try:
        if process.stdin is not None:
            process.stdin.close()
    except OSError:
        pass


def _count_lines(path: Path, offset: int) -> int:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return sum(1 for _ in file)
    except OSError:
        return 0
