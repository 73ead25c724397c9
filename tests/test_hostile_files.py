"""Valid files, changed at random with right checksums: each reader returns a valid object or says in one line why not."""

import functools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hostile import trial, warm_up
from support.hostile_mutators import changed, plain_mutation
from support.hostile_readers import READERS, is_available
from support.hostile_seeds import seeds_of

MAX_LENGTH = 2**16  # bytes of a changed file
SLOW_READERS = ("export", "pth", "metrics")  # which take ten milliseconds and more


@functools.cache
def valid_files(name: str) -> list[bytes]:
    """Return the valid files of a reader, after reading each once: first uses of a library import modules."""
    files = list(seeds_of(name).values())
    for data in files:
        warm_up(READERS[name].read, data)
    return files


def check(name: str, place: int, seeds: list[int]) -> None:
    data = valid_files(name)[place % len(valid_files(name))]
    for seed in seeds:
        data = changed(READERS[name].form, data, MAX_LENGTH, seed, plain_mutation(random.Random(seed)))
    trial(READERS[name].read, data)


CHANGES = {"place": st.integers(0, 100), "seeds": st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4)}


@pytest.mark.parametrize("name", sorted(READERS.keys() - set(SLOW_READERS)))
@settings(max_examples=150)
@given(**CHANGES)
def test_a_changed_file_is_read_or_refused_in_one_line(name, place, seeds):
    check(name, place, seeds)


@pytest.mark.parametrize("name", SLOW_READERS)
@settings(max_examples=30)
@given(**CHANGES)
def test_a_changed_large_file_is_read_or_refused_in_one_line(name, place, seeds):
    if not is_available(name):
        pytest.skip("the package that this reader needs is not installed")
    check(name, place, seeds)
