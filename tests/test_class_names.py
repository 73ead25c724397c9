"""`classes.txt` comes from anyone: its names are plain text, or an error names the line."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrseg_jax.data.datasets.folder import read_class_names
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError, escaped


def read(folder, data: bytes) -> tuple[str, ...]:
    (folder / "classes.txt").write_bytes(data)
    return read_class_names(folder)


@pytest.mark.parametrize("data", [b"sky\nroad", b"sky\r\nroad\r\n", b"sky\rroad\r", b"\xef\xbb\xbfsky \n\troad\n"])
def test_lines_may_end_as_on_any_system(tmp_path, data):
    assert read(tmp_path, data) == ("sky", "road")


def test_letters_signs_and_emoji_are_names(tmp_path):
    names = ("$x$", "<script>", 'a "quote", comma', "سماء", "дорога", "👩\u200d👧", "🏴\U000e0067\U000e007f", "a/b\\c")
    assert read(tmp_path, "\n".join(names).encode()) == names


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"sky\nro\x1b[2Jad", r"line 2 holds the invisible character U\+001B \(a control character\) at position 3"),
        (b"sky\nerror:\x00x", r"line 2 holds the invisible character U\+0000"),
        ("sky\ndaor\u202e".encode(), r"line 2 holds the invisible character U\+202E \(RIGHT-TO-LEFT OVERRIDE\)"),
        ("sky\u2028error: forged".encode(), r"line 1 holds the invisible character U\+2028"),
        ("sky\x85error: forged".encode(), r"line 1 holds the invisible character U\+0085"),
        (b"sky\nroad\rerror: forged\n", r"line 2 holds a line end of another system"),
        ("sky\n" + "x" * 201, r"line 2 has 201 characters"),
        ("sky\nroad".encode("utf-16"), r"is not UTF-8 text \(it is UTF-16\): save it as UTF-8"),
        ("sky\nroad".encode("utf-16-be"), r"is not UTF-8 text \(it is UTF-16\)"),
        ("sky\n\u3000\nroad", r"line 2 is empty"),
        ("sky\n\u2003", r"line 2 is empty"),
        (b"sky\ncaf\xe9", r"is not UTF-8 text \(line 2: "),
        ("é\nroad\ne\u0301", r"line 3 repeats the class .* of line 1"),
        ("\n".join(map(str, range(10_001))), r"names 10001 classes: expected at most 10,000"),
    ],
)
def test_other_names_are_refused_with_their_line(tmp_path, data, message):
    with pytest.raises(UserError, match=rf"classes\.txt:? {message}"):
        read(tmp_path, data if isinstance(data, bytes) else data.encode())


@given(
    st.binary(max_size=40)
    | st.text(max_size=20).map(str.encode)
    | st.text("\n a\u3000\u2003\xa0é", max_size=8).map(str.encode)
)
def test_any_content_is_names_or_one_error(tmp_path, data):
    try:
        names = read(tmp_path, data)
    except UserError as error:
        assert "classes.txt" in str(error)
        return
    space = LabelSpace(names, tuple(range(1, len(names) + 1)))  # refuses what `classes.txt` must not hold
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for name in space.names for c in name)
    assert not any("\\u202" in escaped(name) for name in names)


def test_a_list_that_is_not_a_regular_file_is_explained(tmp_path):
    os.mkfifo(tmp_path / "classes.txt")
    with pytest.raises(UserError, match=r"classes\.txt is a named pipe: expected a regular file"):
        read_class_names(tmp_path)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "classes.txt").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"classes\.txt is a link to a file that does not exist"):
        read_class_names(tmp_path)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "Classes.TXT").write_text("sky")
    with pytest.raises(UserError, match=r"classes\.txt is missing, and found 'Classes\.TXT' \(other letter case\)"):
        read_class_names(tmp_path)
