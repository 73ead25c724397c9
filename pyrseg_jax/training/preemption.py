"""Preemption: on SIGTERM, save the state and exit with status 75.

Cloud providers and cluster schedulers send SIGTERM some seconds before they take a machine back. This file imports hardly
more than the standard library, so that the handler can be installed before slow imports.
"""

import contextlib
import enum
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from pyrseg_jax.distributed.worker_processes import end_children

# The exit status of a preempted run: EX_TEMPFAIL of sysexits.h, "the user is invited to retry".
STATUS = 75
# Seconds between SIGTERM and a forced exit, if the main thread does not react and nothing is being written.
PATIENCE_S = 3.0


class Preempted(BaseException):
    """SIGTERM has ended the run, and everything worth keeping is on disk.

    Like KeyboardInterrupt, this is not an `Exception`: it can be raised from any line, and code that catches every
    `Exception` from a damaged checkpoint must not mistake it for damage.
    """


class Phase(enum.Enum):
    """The activity of the run, which decides how long SIGTERM has to wait."""

    IMPORTING = "the program is being loaded"
    STARTING = "nothing has been computed yet"
    TRAINING = "the state must be saved first"
    EVALUATING = "the state is saved or being written"


class Preemption:
    """Detects SIGTERM and says when to save and exit. Enter it as a context to install the signal handler.

    In a run of several processes, jax catches the signal, and all processes agree on the step after which to exit; see
    `hand_over`. Otherwise this class handles the signal.

    Before the first step and during an evaluation, the handler raises `Preempted` at once. Between steps, the trainer calls
    `reached`. No exception gets through to a process that is inside a long compilation, so a thread ends such a process after
    `PATIENCE_S`, as soon as no checkpoint is being written.

    Attributes:
      phase: the current phase; set by the code that does the work.
      is_written: a function that tells whether the state that is being evaluated is on disk; set by the code that saves it.
      has_checkpoint: a function that tells whether the run can be resumed; set by the code that knows the run's folder.
    """

    def __init__(self):
        self.phase = Phase.STARTING
        self.is_written: Callable[[], bool] = lambda: True
        self.has_checkpoint: Callable[[], bool] = lambda: False
        self._agreed: Callable[[int], bool] | None = None
        self._has_come = False
        self._is_left = threading.Event()

    def reached(self, step: int) -> bool:
        """Return whether to save and exit after this step; all processes must call this after each step."""
        return self._has_come if self._agreed is None else self._agreed(step)

    @property
    def has_come(self) -> bool:
        """Return whether this process itself has received the signal."""
        return self._has_come

    def hand_over(self, agreed: Callable[[int], bool]) -> None:
        """Leave the signal to jax from now on; `agreed(step)` returns whether all processes exit after this step."""
        self._agreed = agreed

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Mark work that can be interrupted at any moment, because the state that it uses is saved."""
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
        # A terminal that is closed sends SIGHUP. `nohup` ignores it, and so do we then.
        self._previous_hangup = signal.getsignal(signal.SIGHUP)
        if self._previous_hangup is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._on_signal)
        # A Python handler runs only between Python instructions. The C handler writes to this pipe at once, even while the
        # main thread is inside a long call, so the watching thread always learns of the signal.
        self._previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._pipe = reader, writer
        threading.Thread(target=self._watch, args=(reader,), name="preemption", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_left.set()
        signal.set_wakeup_fd(self._previous_fd)
        if self._agreed is None:  # otherwise jax has installed its own handler
            signal.signal(signal.SIGTERM, self._previous)
        signal.signal(signal.SIGHUP, self._previous_hangup)
        os.close(self._pipe[1])  # ends the thread

    def _on_signal(self, number: int, *_: object) -> None:
        # Worker processes inherit this handler; there it must do nothing.
        if self._has_come or os.getpid() != self._main:
            return
        if number == signal.SIGHUP and self._agreed is not None:  # jax tells the other processes of SIGTERM only
            os.kill(self._main, signal.SIGTERM)
            return
        self._has_come = True
        if self.phase is Phase.IMPORTING:  # an exception would get lost in the start of a library
            self._end()
        if self.phase is not Phase.TRAINING:
            raise Preempted

    def _watch(self, reader: int) -> None:
        while received := os.read(reader, 1):
            if self._previous_fd >= 0:  # someone else counts the signals, too
                os.write(self._previous_fd, received)
            if received[0] in (signal.SIGTERM, signal.SIGHUP) and self.phase is not Phase.TRAINING:
                self._end_if_stuck()
        os.close(reader)

    def _end_if_stuck(self) -> None:
        """End the process from this thread if `Preempted` does not get through to the main thread."""
        wait_s = PATIENCE_S
        while not self._is_left.wait(wait_s) and self.phase is not Phase.TRAINING:
            if self.is_written():
                self._end()
            wait_s = 0.1

    def _end(self) -> None:
        say_preempted(self.has_checkpoint())
        sys.stderr.flush()
        end_children()
        os._exit(STATUS)


def say_preempted(is_saved: bool) -> None:
    """Print the line with which a preempted run ends; `is_saved`: whether the run has a checkpoint."""
    if is_saved:
        print("preempted: saved; the same command continues from the last checkpoint", file=sys.stderr)
    else:
        print("preempted: there was nothing to save yet; the same command starts again", file=sys.stderr)
