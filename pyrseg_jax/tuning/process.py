"""The process of a training. It ends with the process of the search; this file imports no JAX, so that it starts at once."""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from pyrseg_jax.distributed.worker_processes import end_with_parent, interrupts_left_to_parent

PROGRAM = "pyrseg_jax.main"


class TrainingProcess:
    """A training in a process of its own, so that its memory is free when it has ended.

    Args:
      arguments: of the command line, after the name of the program.
      log: the file to which it writes what it would write to a terminal; the parts of a trial follow each other there.
      program: the module to run.
    """

    def __init__(self, arguments: Sequence[str], log: Path, program: str = PROGRAM):
        self._process = multiprocessing.get_context("spawn").Process(
            target=run_in_child, args=(program, list(arguments), str(log)), name=f"training {log.stem}"
        )
        with interrupts_left_to_parent():
            self._process.start()

    def wait(self, seconds: float) -> int | None:
        """Wait so long, or until it ends; return its exit status, negative for a signal, or None if it goes on."""
        self._process.join(seconds)
        return self._process.exitcode

    def stop(self) -> int:
        """Let it save its state and end; return its exit status."""
        self._process.terminate()
        self._process.join()
        assert self._process.exitcode is not None  # it has ended
        return self._process.exitcode


def run_in_child(program: str, arguments: list[str], log: str) -> None:
    """Run a program in this process, which is a child of the search, and write what it prints to a file."""
    end_with_parent()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    sys.argv = ["pyrseg", *arguments]
    sys.modules.pop(program, None)  # the program of the search may have imported it
    # As `python -m` would run it: the program lies on a layer above this one.
    runpy.run_module(program, run_name="__main__", alter_sys=True)
