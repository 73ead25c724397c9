"""Files are written whole or not at all, and what a killed process leaves behind is removed without touching anything else."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.full_disk import files_up_to
from support.runs import tiny_config

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.errors import UserError
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage import lock
from pyrseg_jax.storage.atomic import AtomicFile, remove_leftovers, write_atomically, write_bytes_atomically
from pyrseg_jax.training.checkpoint import Checkpoints

ROOT = Path(__file__).parents[1]


@given(st.binary(max_size=99), st.binary(max_size=99))
def test_a_file_holds_the_last_content(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("files") / "a.bin"
    for content in (first, memoryview(second)):
        write_bytes_atomically(path, content)
    assert path.read_bytes() == second
    assert os.listdir(path.parent) == ["a.bin"]


def test_a_full_disk_leaves_the_old_content_and_no_part_of_the_new_one(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes_atomically(path, b"old")
    with files_up_to(1000), pytest.raises(OSError, match="File too large"):
        write_bytes_atomically(path, bytes(100_000))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("function", ["write", "fsync"])
def test_whatever_interrupts_a_write_leaves_nothing_behind(tmp_path, monkeypatch, error, function):
    def fail(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, function, fail)
        with pytest.raises(type(error)):
            write_atomically(tmp_path / "a.txt", "text")
    assert os.listdir(tmp_path) == []


def test_a_disk_that_cannot_sync_is_written_all_the_same(tmp_path, monkeypatch):
    def cannot(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", cannot)
    write_atomically(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").read_text() == "text"


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "photograph.jpg").write_bytes(b"mine")
    (tmp_path / "a.json").symlink_to(tmp_path / "photograph.jpg")
    write_atomically(tmp_path / "a.json", "{}")
    assert (tmp_path / "photograph.jpg").read_bytes() == b"mine"
    assert (tmp_path / "a.json").read_text() == "{}"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "folder", "{}")
    assert sorted(os.listdir(tmp_path)) == ["a.json", "folder", "photograph.jpg"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path, contents = tmp_path / "a.bin", [bytes([value]) * 50_000 for value in range(8)]
    threads = [
        threading.Thread(target=lambda c=content: [write_bytes_atomically(path, c) for _ in range(20)])
        for content in contents
    ]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        remove_leftovers(tmp_path)  # as a command does that starts in the meantime
        if path.exists():
            seen.add(path.read_bytes())
    assert seen <= set(contents)
    assert os.listdir(tmp_path) == ["a.bin"]


def test_what_a_killed_writer_leaves_is_removed_and_nothing_else(tmp_path):
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom pyrseg_jax.storage import atomic\n"
        f"os.fsync = lambda _: (print('writing', flush=True), sys.stdin.read())\n"
        f"atomic.write_atomically(Path({str(tmp_path / 'a.json')!r}), 'text')\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "writing\n"
    mine = [
        "mine.partial",
        "a.json.partial",
        "a.json.0123456.partial",
        "a.json.01234567.partial.txt",
        "01234567.partial",
    ]
    for name in mine:
        (tmp_path / name).write_text("mine")
    (tmp_path / "b.0123abcd.partial").mkdir()
    (tmp_path / "c.0123abcd.partial").symlink_to(tmp_path / "mine.partial")
    assert remove_leftovers(tmp_path) == []  # the writer is alive
    writer.kill()
    writer.communicate()
    (left,) = remove_leftovers(tmp_path)
    assert left.startswith("a.json.")
    assert sorted(os.listdir(tmp_path)) == sorted([*mine, "b.0123abcd.partial", "c.0123abcd.partial"])
    assert remove_leftovers(tmp_path, ["a.json"]) == ["a.json.partial"]
    assert remove_leftovers(tmp_path / "nowhere") == []


def test_the_next_training_removes_what_a_killed_one_left(tmp_path, caplog):
    run = Workdir(str(tmp_path / "run"))
    with run.lock():
        run.open_for_training(tiny_config(), ade_layout(("sky",)), "random")
    left = [run.path / "config.json.partial", run.path / "classes.json.0123abcd.partial"]
    for folder in (run.checkpoints / "9.orbax-checkpoint-tmp-12", run.checkpoints / "9.orbax-checkpoint-tmp"):
        (folder / "variables").mkdir(parents=True)
    for path in left:
        path.write_text("{")
    reader = Checkpoints(run.checkpoints, is_reader=True)
    reader.close()
    assert len(list(run.checkpoints.iterdir())) == 2  # a reader removes nothing
    with caplog.at_level("INFO"), run.lock():
        Checkpoints(run.checkpoints).close()
    assert not any(path.exists() for path in left)
    assert list(run.checkpoints.iterdir()) == []
    assert (
        "removed what an interrupted command left there: classes.json.0123abcd.partial, config.json.partial"
        in caplog.text
    )
    assert "removed what an interrupted run left unfinished: 9.orbax-checkpoint-tmp, 9.orbax" in caplog.text


# --- the lock file


@pytest.mark.parametrize("kind", ["a named pipe", "a symbolic link", "a folder"])
def test_a_lock_that_is_not_a_file_is_refused_and_nothing_is_written_through_it(tmp_path, kind):
    path = tmp_path / "lock"
    (tmp_path / "mine").write_text("mine")
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=f"lock is {kind}: expected a regular file; remove it"), lock.locked(path):
        pytest.fail("locked")
    assert (tmp_path / "mine").read_text() == "mine"


@given(
    st.binary(max_size=50)
    | st.sampled_from([b"[" * 4096, b'{"host": 1, "process": "x", "since": null}', b"\xff" * 9999])
)
def test_a_damaged_lock_file_is_described_vaguely(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("run") / "lock"
    with lock.locked(path):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is being trained in by another process: wait"), lock.locked(path):
            pytest.fail("two hold one lock")


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_file_written_in_pieces_appears_whole_or_not_at_all(tmp_path, is_committed):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with contextlib.suppress(RuntimeError), AtomicFile(path) as file:
        file.file.write(b"new")
        assert path.read_bytes() == b"old"
        if not is_committed:
            raise RuntimeError
        file.commit()
    assert path.read_bytes() == (b"new" if is_committed else b"old")
    assert os.listdir(tmp_path) == ["a"]
