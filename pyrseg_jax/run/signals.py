"""End the program on Ctrl-C, SIGTERM and SIGHUP: by an exception the first time, and at once the second time."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from pyrseg_jax.distributed.worker_processes import end_children

# Seconds after Ctrl-C until the user reads that the program is still ending.
PATIENCE_S = 2.0
STILL_ENDING = "interrupted: ending; press Ctrl-C again to end at once"


class Stopped(BaseException):
    """SIGTERM or SIGHUP ends the program. Like KeyboardInterrupt it is not an `Exception`: nothing may mistake it for a fault."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number

    @property
    def name(self) -> str:
        """The name of the signal, such as SIGTERM."""
        return signal.Signals(self.number).name


@contextlib.contextmanager
def ending_signals() -> Iterator[None]:
    """Turn the first signal into KeyboardInterrupt or `Stopped`; the second Ctrl-C ends the process at once.

    A signal that is ignored stays ignored: `nohup` and shells that start a program in the background rely on it. A second Ctrl-C is
    seen by a thread of its own, because the main thread may be inside of a long compilation, where no Python code runs.
    """
    main = os.getpid()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if os.getpid() != main:  # a forked child inherits this handler
            os._exit(128 + number)
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    usual = (signal.SIG_DFL, signal.default_int_handler)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in usual:
            signal.signal(number, on_signal)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The C handler writes the signal's number to this pipe at once, whatever the main thread does.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
    sys.unraisablehook = _drop_interrupts
    yield


def ignore_from_now_on() -> None:
    """Everything is done: let a late Ctrl-C not disturb the end of the process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: os._exit(128 + number))


def _watch(reader: int) -> None:
    """Read the numbers of signals, and end the process at the second Ctrl-C."""
    count, has_said = 0, False
    while True:
        if not select.select([reader], [], [], PATIENCE_S if count and not has_said else None)[0]:
            print(STILL_ENDING, file=sys.stderr, flush=True)
            has_said = True
            continue
        received = os.read(reader, 1)
        count += received == bytes([signal.SIGINT])
        if count > 1:
            print("interrupted twice: ended at once", file=sys.stderr, flush=True)
            end_children()
            os._exit(128 + signal.SIGINT)


def _drop_interrupts(unraisable) -> None:
    """Say nothing of an interrupt that arrived inside of a destructor, where no exception can get out."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt | Stopped):
        sys.__unraisablehook__(unraisable)
