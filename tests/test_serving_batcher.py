"""Images of several requests in one batch: each gets its own result, whatever comes together."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrseg_jax.serving.batcher import NUM_RUNNING, Batcher

Items = list[tuple[str, int]]  # the group of each item, and after how many turns of the event loop it comes


class Doubling:
    """Doubles numbers, and notes what came together."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.num_running = self.most_running = 0

    async def __call__(self, group: str, items: list[int]) -> list[int]:
        self.batches.append((group, list(items)))
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        await asyncio.sleep(0)
        self.num_running -= 1
        if group == "bad":
            raise ValueError(f"{items} are bad")
        return [2 * item for item in items]


async def submit_all(batcher: Batcher, items: Items) -> list:
    async def one(number: int, group: str, turns: int):
        for _ in range(turns):
            await asyncio.sleep(0)
        return await batcher.submit(group, number)

    each = (one(number, *item) for number, item in enumerate(items))
    return await asyncio.gather(*each, return_exceptions=True)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "bad"]), st.integers(0, 3)), max_size=20),
    st.integers(1, 4),
)
def test_every_item_gets_its_own_result_and_no_batch_mixes_groups(items, batch_size):
    compute = Doubling()
    results = asyncio.run(submit_all(Batcher(compute, batch_size, wait_s=0.001), items))
    for number, ((group, _), result) in enumerate(zip(items, results, strict=True)):
        assert isinstance(result, ValueError) if group == "bad" else result == 2 * number
    assert sorted(number for _, batch in compute.batches for number in batch) == list(range(len(items)))
    for group, batch in compute.batches:
        assert 1 <= len(batch) <= batch_size
        assert {items[number][0] for number in batch} == {group}
    assert compute.most_running <= NUM_RUNNING


def test_items_that_come_together_go_together_and_a_full_batch_does_not_wait():
    compute = Doubling()
    results = asyncio.run(submit_all(Batcher(compute, 4, wait_s=3600), [("a", 0)] * 8))
    assert results == [2 * number for number in range(8)]
    assert [len(batch) for _, batch in compute.batches] == [4, 4]


def test_those_that_wait_longest_come_first():
    compute = Doubling()
    items = [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("c", 1)]
    asyncio.run(submit_all(Batcher(compute, 1), items))
    assert [batch[0] for _, batch in compute.batches] == list(range(6))


def test_an_item_whose_caller_has_left_is_left_out():
    compute = Doubling()

    async def work() -> int:
        batcher = Batcher(compute, 2, wait_s=0.01)
        gone = asyncio.create_task(batcher.submit("a", 1))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await batcher.submit("a", 2)

    assert asyncio.run(work()) == 4
    assert compute.batches == [("a", [2])]
