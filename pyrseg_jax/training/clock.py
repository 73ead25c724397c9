"""Training speed, and the share of the time spent waiting for data."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Measures images per second and the share of time spent waiting for data; pauses such as evaluations do not count.

    Args:
      batch_size: images per step.
      num_done: steps completed so far.
    """

    def __init__(self, batch_size: int, num_done: int):
        self._batch_size = batch_size
        self._values: dict[str, float] = {}
        self._restart(num_done)

    def _restart(self, num_done: int) -> None:
        self._num_done = num_done
        self._wait_s = self._pause_s = 0.0
        self._start_s = time.perf_counter()

    def read(self, num_done: int) -> dict[str, float]:
        """Return the speed since the last reading.

        Args:
          num_done: steps that the device has completed by now. If no step finished since the last reading, the method
            returns the previous values.

        Returns:
          `images_per_second` and `data_wait_share` (0 … 1).
        """
        num_steps = num_done - self._num_done
        if num_steps:
            elapsed_s = time.perf_counter() - self._start_s - self._pause_s
            self._values = {
                "images_per_second": num_steps * self._batch_size / elapsed_s,
                "data_wait_share": self._wait_s / elapsed_s,
            }
            self._restart(num_done)
        return self._values

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside the context as waiting for data."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self._wait_s += time.perf_counter() - start_s

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside the context out of the measurement."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self._pause_s += time.perf_counter() - start_s
