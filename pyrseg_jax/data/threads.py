"""Map with threads: decoding releases Python's global lock, so threads use all cores without copying images."""

import collections
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

THREADS = os.cpu_count() or 1

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ordered_map(
    function: Callable[[_Item], _Result], items: Sequence[_Item], num_threads: int
) -> Generator[_Result, None, None]:
    """Map with threads and yield the results in order.

    At most `2 * num_threads` results are computed ahead of the one that the caller asks for, so that a whole split never sits in
    memory.
    """
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        upcoming = iter(items)
        running = collections.deque(pool.submit(function, item) for item in itertools.islice(upcoming, 2 * num_threads))
        try:
            while running:
                result = running.popleft().result()
                for item in itertools.islice(upcoming, 1):
                    running.append(pool.submit(function, item))
                yield result
        finally:
            for future in running:
                future.cancel()
