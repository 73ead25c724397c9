"""The speed of training, and how much of the time it waits for data."""

import time


class Clock:
    """Measures steps, and of these the time spent waiting for data; pauses are left out."""

    def __init__(self, batch_size: int, num_done: int):
        self._batch_size = batch_size
        self._values: dict[str, float] = {}
        self._restart(num_done)

    def _restart(self, num_done: int) -> None:
        self._num_done = num_done
        self._wait_s = self._pause_s = 0.0
        self._start = time.perf_counter()

    def read(self, num_done: int) -> dict[str, float]:
        """Return the speed since it was last read, given how many steps the device has completed by now.

        If it has completed none since, these are the values of that time.
        """
        num_steps = num_done - self._num_done
        if num_steps:
            elapsed = time.perf_counter() - self._start - self._pause_s
            self._values = {
                "images_per_second": num_steps * self._batch_size / elapsed,
                "data_wait_share": self._wait_s / elapsed,
            }
            self._restart(num_done)
        return self._values

    def waiting(self):
        return _Span(self, "_wait_s")

    def paused(self):
        return _Span(self, "_pause_s")


class _Span:
    """Adds the time inside of a `with` to one of the clock's sums."""

    def __init__(self, clock: Clock, name: str):
        self._clock, self._name = clock, name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_) -> None:
        setattr(self._clock, self._name, getattr(self._clock, self._name) + time.perf_counter() - self._start)
