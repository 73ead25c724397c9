"""How the program ends: one line and an exit status for every exception, and what is true after an interruption."""

import signal
import sys
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.run.signals import NOTHING_STARTED, Stopped, name_of
from pyrseg_jax.run.terminal import print_error
from pyrseg_jax.training.preemption import STATUS, Preempted, say_preempted

FAILED = 1
MEMORY_SIGNS = (
    "failed to map segment",
    "RESOURCE_EXHAUSTED",
    "std::bad_alloc",
    "Out of memory",
    "out of memory",
    "Insufficient memory",
    "Cannot allocate",
)
THREADS = (
    "the system starts no more threads or processes for this user: end other programs or raise the limit (`ulimit -u`)"
)


@runtime_checkable
class Ending(Protocol):
    """What a mode knows of its end; `commands.Mode` is one. `memory`: what to do when memory runs out.

    is_continued: whether the same command continues where a signal ended it.
    """

    @property
    def memory(self) -> str: ...

    @property
    def is_continued(self) -> bool: ...

    @property
    def takes(self) -> tuple[str, ...]: ...

    def after_interruption(self, has_checkpoint: bool) -> str:
        """Say what is true of the mode's files, and what the same command does next."""
        ...


def end(error: BaseException, mode: Ending | None, workdir=None, has_started: bool = True) -> int:
    """Print the line with which a program ends that an exception has ended, and return the exit status.

    Args:
      error: the exception.
      mode: the mode; None if the command line was not read yet.
      workdir: the `Workdir` of the run; None if it is not known yet or the mode has none.
      has_started: whether the mode's function was called.
    """
    signaled = next(
        (found for found in _chain(error) if isinstance(found, KeyboardInterrupt | Stopped | Preempted)), None
    )
    if signaled is None:
        print_error(describe(error, mode))
        return FAILED
    if isinstance(signaled, Preempted) or (isinstance(signaled, Stopped) and _is_preemption(signaled, mode)):
        say_preempted(_has_checkpoint(workdir))
        return STATUS
    truth = mode.after_interruption(_has_checkpoint(workdir)) if mode and has_started else NOTHING_STARTED
    truth = "; ".join([*getattr(signaled, "__notes__", ()), truth])  # a command may add what it knows with `add_note`
    number = signaled.number if isinstance(signaled, Stopped) else signal.SIGINT
    print(f"{name_of(number)}: {truth}", file=sys.stderr)
    is_continued = mode is not None and mode.is_continued and isinstance(signaled, Stopped)
    return STATUS if is_continued else 128 + number


def describe(error: BaseException, mode: Ending | None = None) -> str:
    """Describe any exception in one line for the user: what was found, and what to do."""
    text = str(error)
    if isinstance(error, UserError):
        return text
    if type(error).__name__ == "BrokenProcessPool":  # importing the class would slow every start
        return f"a worker process was killed, most likely because memory ran out: {_memory_advice(mode)}"
    if isinstance(error, MemoryError) or any(sign in text for sign in MEMORY_SIGNS):
        detail = "" if isinstance(error, MemoryError) and not text else f" ({reason_of(error)})"
        return f"there is not enough memory{detail}: {_memory_advice(mode)}"
    if "can't start new thread" in text or isinstance(error, BlockingIOError):
        return THREADS
    if "Could not determine home directory" in text:
        return "a path begins with ~, but the home folder is not known: set HOME, or write the whole path"
    if isinstance(error, OSError):  # a full disk, a folder without permission, a file that vanished
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or reason_of(error)}"
    return f"the program has a fault ({reason_of(error)}): run the same command with --debug, and report what it prints"


def _memory_advice(mode: Ending | None) -> str:
    return mode.memory if mode else "close other programs and start the same command again"


def _is_preemption(stopped: Stopped, mode: Ending | None) -> bool:
    """Return whether a scheduler should start the program again: a training that was stopped before it could do anything."""
    return stopped.number == signal.SIGTERM and (mode is None or "preemption" in mode.takes)


def _has_checkpoint(workdir) -> bool:
    try:
        return workdir is not None and workdir.has_checkpoint()
    except OSError:  # the folder is gone
        return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those behind it: a library may turn an interrupt during its import into another error."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
