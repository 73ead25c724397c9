"""Stalls: a step that does not end is reported, with what every thread is doing."""

import contextlib
import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

# The first step includes its compilation, which may take this many times as long as a stall.
FIRST_STEP_FACTOR = 6


class StallWatch:
    """Watch from a thread of its own that steps go on, while it is entered as a context; evaluations are not watched.

    A step that takes longer than `stall_s` is reported on stderr and in a file, with the stack of each thread; again after
    twice the time, and so on. The run goes on waiting: only its user knows whether a slow disk will come back.

    Args:
      stall_s: seconds; 0 watches nothing.
      file: gets the stacks, too; None: stderr alone.
    """

    def __init__(self, stall_s: float = 0, file: Path | None = None):
        self._stall_s, self._file = stall_s, file
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._doing: str | None = None
        self._next_report_s = self._since = 0.0

    @contextlib.contextmanager
    def watching(self, doing: str, *, is_first: bool = False) -> Iterator[None]:
        """Watch what is done inside of a `with`; `is_first`: it may be a compilation."""
        with self._lock:
            self._doing, self._since = doing, time.monotonic()
            self._next_report_s = self._stall_s * (FIRST_STEP_FACTOR if is_first else 1)
        try:
            yield
        finally:
            with self._lock:
                self._doing = None

    def __enter__(self) -> "StallWatch":
        if self._stall_s:
            threading.Thread(target=self._watch, name="stall watch", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._is_over.set()

    def _watch(self) -> None:
        while not self._is_over.wait(min(self._stall_s / 4, 5.0)):
            with self._lock:
                doing, waited_s = self._doing, time.monotonic() - self._since
                is_stalled = doing is not None and waited_s > self._next_report_s
                if is_stalled:
                    self._next_report_s *= 2
            if is_stalled:
                self._report(doing, waited_s)

    def _report(self, doing: str, waited_s: float) -> None:
        where = f"; the stack of each thread follows, and is in {self._file}" if self._file else ""
        log.warning(
            "stalled: %s for %.0f s (config.training.stall_s=%g)%s. Still waiting: if it does not go on, look whether the disk of "
            "the data answers and all processes are alive, end this one with Ctrl-C and start the same command again",
            doing,
            waited_s,
            self._stall_s,
            where,
        )
        _dump(sys.stderr)
        if self._file is None:
            return
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {doing} for {waited_s:.0f} s\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
                file.write("\n")
        except OSError as error:  # the disk may be what has stalled
            log.warning("%s cannot be written (%s)", self._file, error)


def _dump(stream) -> None:
    try:
        faulthandler.dump_traceback(stream, all_threads=True)
    except (OSError, ValueError, AttributeError):  # a stream without a file behind it, as in a notebook
        log.warning("the stacks cannot be written to stderr")
