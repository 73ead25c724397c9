"""Worker processes that end with their parent and leave Ctrl-C to it. Data workers import this file, so it imports no JAX."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker


def end_with_parent(*_: object) -> None:
    """In a worker process, end as soon as the parent process has ended, however it ended; call this once at the start.

    A worker that waits for work would otherwise wait forever after its parent was killed, and hold the parent's files and pipes
    open. In a process without a parent this does nothing. The arguments are ignored: Grain passes some.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)  # nobody is left to read results, and finished files were renamed into place

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


@contextlib.contextmanager
def interrupts_left_to_parent() -> Iterator[None]:
    """Start worker processes inside of this context, so that Ctrl-C in a terminal reaches only the parent.

    The terminal sends SIGINT to all processes of the group. A worker that is still importing its modules would print a traceback.
    Processes and threads that start here inherit the block. Other threads of this process still receive the signal.
    """
    # Python starts this helper with the first worker, and would unblock the signal then.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_children() -> None:
    """End the worker processes of this process now. Their files are complete or absent, so nothing is lost."""
    if "multiprocessing.process" in sys.modules:
        for child in multiprocessing.active_children():
            child.terminate()
