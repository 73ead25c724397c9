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
from pyrseg_jax.training.preemption import STATUS, Phase, Preempted, Preemption

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOTHING_STARTED = "nothing was started, so nothing has changed"
STILL_ENDING = "interrupted: ending; press Ctrl-C again to end at once"
PATIENCE_S = 2.0  # after Ctrl-C, until the user reads that the program is still ending


class Stopped(BaseException):
    """SIGTERM or SIGHUP ends the program. Like KeyboardInterrupt it is not an `Exception`: nothing may mistake it for a fault."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Postponed:
    """A signal that the work looks for at times of its own, so that it can finish what it has begun.

    Attributes:
      number: of the first signal that came; None so far.
    """

    number: int | None = None

    def has_come(self) -> bool:
        """Return whether to begin nothing new."""
        return self.number is not None

    def raise_again(self) -> None:
        """Raise what the signal would have raised when it came, if it has come."""
        if self.number is not None:
            raise _exception_of(self.number)


def name_of(number: int) -> str:
    """Return how a message begins that names a signal: `interrupted` for Ctrl-C, `stopped by SIGTERM`."""
    return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


# Whether the chosen mode works already. Until then, a signal ends the process at once: no file is open yet, and an exception in the
# middle of an import gets lost in a library, or turns into an error of another kind.
_is_working = False
_postponed: "Postponed | None" = None  # where a signal is noted instead of raised
_is_cut_off = False  # whether a signal was raised, at any place of the work
_sent_again: list[int] = []  # interrupts that this process has sent to itself, which count no second time


@contextlib.contextmanager
def handling() -> Iterator[None]:
    """Turn the first signal into KeyboardInterrupt or `Stopped`; the second Ctrl-C ends the process at once.

    A signal that is ignored stays ignored: `nohup` and shells that start a program in the background rely on it. A second Ctrl-C is
    seen by a thread of its own, because the main thread may be inside of a long compilation, where no Python code runs. When the
    context ends, the process has nothing left to do, and every signal ends it at once.
    """
    main = os.getpid()

    def on_signal(number: int, frame: FrameType | None) -> None:
        global _is_cut_off
        if os.getpid() != main:  # a forked child inherits this handler
            os._exit(128 + number)
        if not _is_working:
            _end(number, f"{name_of(number)}: {NOTHING_STARTED}")
        if _postponed is not None:
            _postponed.number = _postponed.number or number
            return
        _is_cut_off = True
        raise _exception_of(number)

    handled = [number for number in NUMBERS if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)]
    for number in handled:
        signal.signal(number, on_signal)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The C handler writes the signal's number to this pipe at once, whatever the main thread does.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
    sys.unraisablehook = _send_lost_again
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, lambda number, frame: os._exit(128 + number))


@contextlib.contextmanager
def postponing() -> Iterator[Postponed]:
    """Note the first signal instead of raising it; a second Ctrl-C still ends the process at once."""
    global _postponed
    before, _postponed = _postponed, Postponed()
    try:
        yield _postponed
    finally:
        _postponed = before


def _exception_of(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(number)


def begin_work(preemption: Preemption | None) -> None:
    """From now on the mode works: a signal is an exception, so that the mode can end in order."""
    global _is_working
    _is_working = True
    if preemption is not None:
        preemption.phase = Phase.STARTING


def end_if_signaled(status: int) -> None:
    """End the process now if its exit status is that of a signal.

    If the work was cut off at any place, libraries may have threads there that would abort the usual end of the interpreter.
    """
    if status in [128 + number for number in NUMBERS] or (status == STATUS and _is_cut_off):
        end_children()
        os._exit(status)


def _watch(reader: int) -> None:
    """Read the numbers of signals, and end the process at the second Ctrl-C."""
    count, has_said = 0, False
    while True:
        if not select.select([reader], [], [], PATIENCE_S if count and not has_said else None)[0]:
            print(STILL_ENDING, file=sys.stderr, flush=True)
            has_said = True
            continue
        if os.read(reader, 1) != bytes([signal.SIGINT]):
            continue
        if _sent_again:
            _sent_again.pop()
            continue
        count += 1
        if count > 1:
            _end(signal.SIGINT, "interrupted twice: ended at once")


def _end(number: int, line: str) -> None:
    """End this process and its workers without any further work."""
    print(line, file=sys.stderr, flush=True)
    end_children()
    os._exit(128 + number)


def _send_lost_again(unraisable) -> None:
    """Raise an interrupt again that arrived inside of a destructor or a callback, where no exception can get out."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt | Stopped):
        number = unraisable.exc_value.number if issubclass(unraisable.exc_type, Stopped) else signal.SIGINT
        threading.Timer(0.05, _send_again, (number,)).start()
    elif not issubclass(unraisable.exc_type, Preempted):  # which has a thread of its own that ends the process
        sys.__unraisablehook__(unraisable)


def _send_again(number: int) -> None:
    if number == signal.SIGINT:
        _sent_again.append(number)
    os.kill(os.getpid(), number)
