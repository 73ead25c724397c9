"""Whatever bytes a reader of files is given, it returns a valid object or says in one line why not."""

import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.hostile import Violation, trial, warm_up
from support.hostile_readers import READERS, is_available
from support.hostile_seeds import seeds_of

from pyrseg_jax.errors import UserError

CORPUS = Path(__file__).parents[1] / "benchmarks" / "fuzz_corpus"


@pytest.mark.parametrize("name", READERS)
def test_each_kept_input_is_read_or_refused_in_one_line(name):
    """Replays what `benchmarks/fuzz.py` found; an input named fault-… once broke the reader."""
    if not is_available(name):
        pytest.skip("the package that this reader needs is not installed")
    seeds = seeds_of(name)
    for data in seeds.values():
        warm_up(READERS[name].read, data)
    assert any(not trial(READERS[name].read, data) for data in seeds.values()), "no valid file is accepted"
    kept = sorted((CORPUS / name).iterdir())
    assert kept
    for file in kept:
        try:
            trial(READERS[name].read, file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{name}/{file.name}: {type(error).__name__}: {error}") from error


def test_the_corpus_is_small():
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    assert len(files) <= 450
    assert sum(file.stat().st_size for file in files) < 2**20


def raise_a_page(data, folder):
    raise UserError("x.png is bad " + "and long" * 1000)


def raise_nothing_said(data, folder):
    raise UserError(" ")


def write_elsewhere(data, folder):
    (folder.parent / "elsewhere").write_bytes(data)


def remove_elsewhere(data, folder):
    os.remove(folder.parent / "there-is-no-such-file")


def start_a_program(data, folder):
    subprocess.run(["true"], check=True)


def connect(data, folder):
    with socket.socket() as found:
        found.connect(("127.0.0.1", 9))


def take_memory(data, folder):
    try:
        np.ones(2**40, np.uint8)  # more than malloc may have kept from earlier tests
    except MemoryError as error:
        raise UserError("x.mat cannot be read (there is not enough memory)") from error


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (raise_a_page, "a message of"),
        (raise_nothing_said, "a message of"),
        (write_elsewhere, "open of"),
        (remove_elsewhere, r"os\.remove of"),
        (start_a_program, r"subprocess\.Popen"),
        (connect, r"socket\.connect"),
        (take_memory, "memory ran out"),
    ],
)
def test_a_reader_that_misbehaves_is_noticed(read, message):
    with pytest.raises(Violation, match=message):
        trial(read, b"x")
