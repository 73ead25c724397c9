"""A pool of worker processes that ends at once on Ctrl-C, and whose workers end with this process."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from pyrseg_jax.distributed.worker_processes import end_with_parent, interrupts_left_to_parent


class WorkerPool(ProcessPoolExecutor):
    """A `ProcessPoolExecutor` for work that may be cut off at any moment: what it writes is renamed into place at the end.

    After an exception, the pool finishes the tasks that have begun, like its base. After anything else, such as Ctrl-C or SIGTERM,
    it ends its workers. Do not cancel futures then: the base cannot end a pool with canceled ones.

    Args:
      num_workers: number of processes.
      initializer: a function that each worker calls first.
      initargs: its arguments.
    """

    def __init__(self, num_workers: int, initializer: Callable[..., None], initargs: tuple = ()):
        # "spawn", because a forked child would inherit locks that threads of the caller hold.
        context = multiprocessing.get_context("spawn")
        super().__init__(num_workers, context, _start_worker, (initializer, initargs))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Schedule a call; this may start a worker."""
        with interrupts_left_to_parent():
            return super().submit(fn, *args, **kwargs)

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> bool | None:
        """End the pool."""
        if kind is not None and not issubclass(kind, Exception):
            for worker in list((self._processes or {}).values()):
                worker.terminate()
        elif kind is not None:
            self.shutdown(cancel_futures=True)
        return super().__exit__(kind, *rest)


def _start_worker(initializer: Callable[..., None], initargs: tuple) -> None:
    end_with_parent()
    initializer(*initargs)
