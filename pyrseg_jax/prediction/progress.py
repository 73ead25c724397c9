"""Say how far a long prediction is: how many images per second, and how much time is left."""

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

log = logging.getLogger(__name__)
EVERY_S = 30.0  # between two lines of a log


class Progress:
    """A bar in a terminal, or else a line in the log every half minute.

    Args:
      total: number of images.
      noun: what is counted.
      every_s: seconds between two lines.
    """

    def __init__(self, total: int, noun: str = "images", every_s: float = EVERY_S):
        self._total, self._noun, self._every_s = total, noun, every_s
        self._start = self._said_at = time.monotonic()
        self.num_done = self.num_earlier = 0
        self._bar = tqdm(total=total, unit=f" {noun}", disable=not sys.stderr.isatty())

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()

    def add(self, is_earlier: bool = False) -> None:
        """Count an image; one that was finished by an earlier command says nothing about the rate."""
        self.num_done += 1
        self.num_earlier += is_earlier
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and now - self._said_at >= self._every_s and self.num_done < self._total:
            self._said_at = now
            log.info("%s", self.describe())

    def per_second(self) -> float:
        """Return the rate since the start."""
        return (self.num_done - self.num_earlier) / max(time.monotonic() - self._start, 1e-9)

    def describe(self) -> str:
        """Return a line such as `1,200 of 5,000 images; 14.2 images per second; 4 min 27 s left`."""
        text = f"{self.num_done:,} of {self._total:,} {self._noun}"
        rate = self.per_second()
        if not rate:
            return text
        return f"{text}; {rate:.3g} {self._noun} per second; {duration((self._total - self.num_done) / rate)} left"


def duration(seconds: float) -> str:
    """Return a time such as `3 h 20 min`, `4 min 27 s` or `12 s`."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
