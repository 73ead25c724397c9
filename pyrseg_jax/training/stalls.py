"""A watchdog that reports training steps that do not finish, with the stack of every thread."""

import contextlib
import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)

# The first step includes its compilation, so it may take this many times as long before it counts as stalled.
FIRST_STEP_FACTOR = 6


class StallWatch:
    """Watch the training steps from a separate thread. Use it as a context manager, which starts the thread.

    If an activity takes longer than `stall_s`, the watchdog logs a warning and writes the stack of each thread to stderr and to
    a file. It reports again after twice that time, then after four times, and so on. It does not end the run, because only the
    user knows whether, for example, a slow disk will respond again. Evaluations are not watched.

    Args:
      stall_s: the limit in seconds; 0 disables the watchdog.
      file: a file that the stacks are appended to; by default they go only to stderr.
    """

    def __init__(self, stall_s: float = 0, file: Path | None = None):
        self._stall_s, self._file = stall_s, file
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._activity: str | None = None
        self._next_report_s = self._since_s = 0.0

    @contextlib.contextmanager
    def watching(self, activity: str, *, is_first: bool = False) -> Iterator[None]:
        """Watch the code inside the context.

        Args:
          activity: a description for the reports, for example "computing step 3".
          is_first: whether the code may include a compilation, which takes longer.
        """
        with self._lock:
            self._activity, self._since_s = activity, time.monotonic()
            self._next_report_s = self._stall_s * (FIRST_STEP_FACTOR if is_first else 1)
        try:
            yield
        finally:
            with self._lock:
                self._activity = None

    def __enter__(self) -> "StallWatch":
        if self._stall_s:
            threading.Thread(target=self._watch, name="stall watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()

    def _watch(self) -> None:
        while not self._is_over.wait(min(self._stall_s / 4, 5.0)):
            with self._lock:
                activity, waited_s = self._activity, time.monotonic() - self._since_s
                is_stalled = activity is not None and waited_s > self._next_report_s
                if is_stalled:
                    self._next_report_s *= 2
            # Outside the lock: writing the report may take long, and must not hold up the training.
            if is_stalled and activity is not None:
                self._report(activity, waited_s)

    def _report(self, activity: str, waited_s: float) -> None:
        where = f" and is in {self._file}" if self._file else ""
        log.warning(
            "stalled: %s for %.0f s (limit: stall_s=%g). The stack of each thread follows%s. The run keeps waiting. If it does "
            "not continue, check that the disk with the data responds and that all processes are alive. Then stop this process "
            "with Ctrl-C, and start the same command again",
            activity,
            waited_s,
            self._stall_s,
            where,
        )
        _dump_stacks(sys.stderr)
        if self._file is None:
            return
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {activity} for {waited_s:.0f} s\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
                file.write("\n")
        except OSError as error:  # the disk may be what has stalled
            log.warning("%s cannot be written (%s)", self._file, error)


def _dump_stacks(stream: TextIO) -> None:
    try:
        faulthandler.dump_traceback(stream, all_threads=True)
    except (OSError, ValueError, AttributeError):  # the stream is not a real file, for example in a notebook
        log.warning("the stacks cannot be written to stderr")
