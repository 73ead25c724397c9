"""Names from data: they stay inside one folder, stay different, and cannot forge a line of a log."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrseg_jax.errors import UserError, escaped, naming_file, reason_of
from pyrseg_jax.storage.names import MAX_BYTES, comparable, file_name_of
from pyrseg_jax.storage.regular_file import read_regular_file

NAMES = st.text(st.characters(), max_size=120) | st.text("./\\%2Fx\n\x1b\udcff\u202e", max_size=300)


@given(NAMES)
def test_a_name_from_data_is_one_file_in_its_folder(tmp_path, name):
    folder = tmp_path / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{file_name_of(name)}_overlay.jpg.partial"
    path.write_bytes(b"x")
    assert path.resolve().parent == folder.resolve() and os.listdir(folder) == [path.name]
    path.unlink()


@given(NAMES, NAMES)
def test_different_names_stay_different(one, other):
    assert (file_name_of(one) == file_name_of(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        ("ADE_val_00000001", "ADE_val_00000001"),
        ("Straße 50% naß", "Straße 50% naß"),
        ("../../x", "..%2F..%2Fx"),
        ("a%2Fb", "a%252Fb"),
        ("..", "%2E%2E"),
        ("", "%"),
        ("a\nb\x1b[2J", "a%0Ab%1B[2J"),
        ("caf\udce9", "caf%E9"),
    ],
)
def test_file_names(name, file_name):
    assert file_name_of(name) == file_name


def test_long_names_are_cut():
    one, other = file_name_of("é" * 300 + "1"), file_name_of("é" * 300 + "2")
    assert one != other and one.startswith("é" * 80) and max(len(one.encode()), len(other.encode())) <= MAX_BYTES


@given(st.text())
def test_composed_and_decomposed_names_compare_equal(name):
    assert comparable(unicodedata.normalize("NFD", name)) == comparable(unicodedata.normalize("NFC", name))


@given(NAMES)
def test_escaped_texts_are_one_visible_line(text):
    line = escaped(text)
    assert len(line.splitlines()) <= 1
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in line)
    assert "\u202e" not in line
    line.encode()  # raises for what is not UTF-8


def test_usual_texts_are_not_changed():
    for text in ("Baum, naß — größer (5 × 3)", "می‌خواهم", "a\u00a0b"):
        assert escaped(text) == text


def test_every_exception_becomes_one_line_with_the_file():
    for error in (MemoryError(), ValueError("bad\nworse"), TypeError("x" * 1000), RecursionError()):
        with (
            pytest.raises(UserError, match=r"^a\\nb\.png cannot be read \(.{3,200}\): replace it$"),
            naming_file("a\nb.png", "cannot be read", "replace it"),
        ):
            raise error
    with pytest.raises(UserError, match="^as it is$"), naming_file("a.png", "cannot be read", "replace it"):
        raise UserError("as it is")
    with pytest.raises(KeyboardInterrupt), naming_file("a.png", "cannot be read", "replace it"):
        raise KeyboardInterrupt
    assert reason_of(MemoryError()) == "there is not enough memory"


def test_only_regular_files_are_read(tmp_path):
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    file.write_bytes(b"content")
    link.symlink_to(file)
    os.mkfifo(pipe)
    assert read_regular_file(link) == b"content"
    with pytest.raises(UserError, match="pipe is a named pipe: expected a regular file"):
        read_regular_file(pipe)
    link.unlink()
    link.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="link is a device: expected a regular file"):
        read_regular_file(link)
    with pytest.raises(UserError, match=r"is a folder: expected a regular file"):
        read_regular_file(tmp_path)
    with pytest.raises(UserError, match="above the limit of"):
        read_regular_file(file, max_bytes=6)
    with pytest.raises(FileNotFoundError):
        read_regular_file(tmp_path / "absent")


def test_files_without_a_size_are_read_up_to_the_limit():
    """Files in /proc have size 0 until they are read."""
    status = Path("/proc/self/status")
    assert status.stat().st_size == 0 and read_regular_file(status).startswith(b"Name:")
    with pytest.raises(UserError, match="above the limit of"):
        read_regular_file(status, max_bytes=10)
