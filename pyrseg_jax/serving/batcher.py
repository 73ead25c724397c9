"""Let images of several requests go through the network together.

Everything here runs in the thread of the event loop, so there are no locks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, NamedTuple

NUM_RUNNING = 2  # batches in work: the device computes one while the next one is prepared
WAIT_S = 0.005  # Chosen: how long an image waits for others to fill its batch; far less than a network takes


class _Entry(NamedTuple):
    """An image that waits. `since`: when it came, as the event loop counts. `future`: its result."""

    item: Any
    since: float
    future: asyncio.Future


Compute = Callable[[Any, Sequence[Any]], Awaitable[Sequence[Any]]]


class Batcher:
    """Collect items by group, and compute up to `batch_size` of one group at a time, those that wait longest first.

    Args:
      compute: (group, items) → the results in the same order.
      batch_size: items in a batch at most.
      wait_s: how long an item waits for others; with a batch size of 1, or when a batch is full, none waits.
    """

    def __init__(self, compute: Compute, batch_size: int, wait_s: float = WAIT_S):
        self._compute, self._batch_size = compute, batch_size
        self._wait_s = wait_s if batch_size > 1 else 0.0
        self._waiting: dict[Hashable, list[_Entry]] = {}
        self._num_free = NUM_RUNNING
        self._running: set[asyncio.Task] = set()  # the event loop itself holds tasks by weak references only

    async def submit(self, group: Hashable, item: Any) -> Any:
        """Return the result of an item; raises what `compute` raises for its batch.

        If the caller is canceled before the batch has begun, the item is left out.
        """
        loop = asyncio.get_running_loop()
        entry = _Entry(item, loop.time(), loop.create_future())
        self._waiting.setdefault(group, []).append(entry)
        if self._wait_s:
            loop.call_later(self._wait_s, self._begin)
        self._begin()
        return await entry.future

    def _begin(self) -> None:
        """Begin batches while there is room for one, and a group is ready."""
        while self._num_free:
            group = self._next_group()
            if group is None:
                return
            entries = self._waiting.pop(group)
            batch, rest = entries[: self._batch_size], entries[self._batch_size :]
            if rest:
                self._waiting[group] = rest
            self._num_free -= 1
            task = asyncio.get_running_loop().create_task(self._run(group, batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _next_group(self) -> Hashable | None:
        """Return the group whose first item came first, among those that are full or have waited."""
        # The clock of timers is coarse: one may fire a moment early.
        latest = asyncio.get_running_loop().time() - self._wait_s + 1e-3
        found, first = None, float("inf")
        for group in list(self._waiting):
            entries = self._waiting[group] = [entry for entry in self._waiting[group] if not entry.future.done()]
            if not entries:
                del self._waiting[group]
            elif entries[0].since < first and (len(entries) >= self._batch_size or entries[0].since <= latest):
                found, first = group, entries[0].since
        return found

    async def _run(self, group: Hashable, batch: Sequence[_Entry]) -> None:
        try:
            results = await self._compute(group, [entry.item for entry in batch])
        except Exception as error:
            for entry in batch:
                if not entry.future.done():
                    entry.future.set_exception(error)
        else:
            for entry, result in zip(batch, results, strict=True):
                if not entry.future.done():
                    entry.future.set_result(result)
        finally:
            self._num_free += 1
            self._begin()
