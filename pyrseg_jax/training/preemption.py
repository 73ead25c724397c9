"""SIGTERM: whoever lends the machine wants it back in some seconds. What there is to save is saved; then the run ends.

Only the standard library is imported here: the signal is to be noticed from the first moment on.
"""

import contextlib
import enum
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

# sysexits.h: EX_TEMPFAIL, "the user is invited to retry".
STATUS = 75
PATIENCE_S = 3.0


class Preempted(BaseException):
    """The run was ended by SIGTERM, and everything that it had is on disk.

    Like KeyboardInterrupt no `Exception`: it is raised out of any line, and a reader of checkpoints that catches whatever a
    damaged file raises must not take it for damage.
    """


class Phase(enum.Enum):
    """What a SIGTERM has to wait for."""

    STARTING = "nothing was computed yet"
    TRAINING = "the state has to be saved"
    EVALUATING = "the state is saved, or being written"


class Preemption:
    """Notices SIGTERM, and says when to save and end.

    Where processes run together, jax catches the signal, and all of them agree on the step to end at: then `agreed` answers,
    and no handler of this class may be installed. Otherwise this is the handler, while it is entered as a context.

    Before the first step, and while a saved state is evaluated, `Preempted` is raised out of whatever is being done; between
    steps, the training loop asks `reached`. A process that is in the middle of a long compilation, where no exception reaches
    it, is ended after `PATIENCE_S`, as soon as nothing is being written any more.

    Attributes:
      phase: set by whoever does the work.
      is_written: tells whether the state that is evaluated is on disk; set by whoever saves it.
    """

    def __init__(self, agreed: Callable[[int], bool] | None = None):
        self.phase = Phase.STARTING
        self.is_written: Callable[[], bool] = lambda: True
        self._agreed = agreed
        self._has_come = False
        self._is_left = threading.Event()

    def reached(self, step: int) -> bool:
        """Tell whether to save and end after this step; to be asked after each step, by all processes."""
        return self._has_come if self._agreed is None else self._agreed(step)

    @property
    def has_come(self) -> bool:
        """Whether this process itself has had the signal."""
        return self._has_come

    def hand_over(self, agreed: Callable[[int], bool]) -> None:
        """From now on, jax catches the signal and answers."""
        self._agreed = agreed

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Mark what may be broken off at any moment, for the state that it is about is saved."""
        before, self.phase = self.phase, Phase.EVALUATING
        try:
            if self._has_come:
                raise Preempted
            yield
        finally:
            self.phase = before

    def __enter__(self) -> "Preemption":
        self._main = os.getpid()
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._previous = signal.signal(signal.SIGTERM, self._on_signal)
        # Written to by the C handler at once, also while the main thread is inside of a long call.
        self._previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._pipe = reader, writer
        threading.Thread(target=self._watch, args=(reader,), name="preemption", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._is_left.set()
        signal.set_wakeup_fd(self._previous_fd)
        if self._agreed is None:  # otherwise jax's handler has taken this one's place
            signal.signal(signal.SIGTERM, self._previous)
        os.close(self._pipe[1])  # ends the thread

    def _on_signal(self, *_) -> None:
        if self._has_come or os.getpid() != self._main:
            return
        self._has_come = True
        if self.phase is not Phase.TRAINING:
            raise Preempted

    def _watch(self, reader: int) -> None:
        while received := os.read(reader, 1):
            if received[0] == signal.SIGTERM and self.phase is not Phase.TRAINING:
                self._end_if_stuck()
        os.close(reader)

    def _end_if_stuck(self) -> None:
        """End the process from beside, if the exception does not come out of what it is doing."""
        wait_s = PATIENCE_S
        while not self._is_left.wait(wait_s) and self.phase is not Phase.TRAINING:
            if self.is_written():
                self._end()
            wait_s = 0.1

    def _end(self) -> None:
        say_preempted()
        sys.stderr.flush()
        for child in multiprocessing.active_children():
            child.terminate()
        os._exit(STATUS)


def say_preempted() -> None:
    """Print the one line that a preempted run ends with."""
    print("preempted: saved; the same command continues from the last checkpoint", file=sys.stderr)
