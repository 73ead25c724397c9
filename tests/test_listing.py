"""Listing folders: every file is read, or counted among the files that are passed over."""

import os
import re

from hypothesis import given
from hypothesis import strategies as st

from pyrseg_jax.data.listing import Entries, entries_of, is_taken, passed_over
from pyrseg_jax.errors import escaped

SUFFIXES = (".jpg", ".png")
names = st.builds(
    lambda stem, suffix: stem + suffix,
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=5),
    st.sampled_from(["", ".jpg", ".JPG", ".png", ".heic", ".txt", ".a b", ".x" * 20, ". "]),
)


@given(st.sets(names, max_size=12), st.integers(0, 5))
def test_every_entry_is_read_or_counted(files, num_folders):
    folders = tuple(f"folder{i}" for i in range(num_folders))
    text = passed_over(Entries(tuple(sorted(files)), folders), SUFFIXES)
    counted = sum(int(number) for number in re.findall(r"(?:^|, | and )(\d+) (?=file|folder|hidden|other|\.)", text))
    assert counted == num_folders + sum(not is_taken(name, SUFFIXES) for name in files)


@given(st.sets(names, max_size=5), st.sets(names, max_size=5))
def test_names_cannot_forge_a_line(files, folders):
    text = passed_over(Entries(tuple(sorted(files)), tuple(sorted(folders))), SUFFIXES)
    assert text == escaped(text) and len(text.splitlines()) <= 1


def test_files_passed_over_are_named_by_kind():
    entries = Entries(("._a.jpg", "a.JPG", "b.heic", "c.HEIC", "d.txt", "readme"), ("city", "night"))
    assert passed_over(entries, SUFFIXES) == (
        "2 folders (city, night), 2 .heic files (HEIC is not read: convert them to JPEG), 1 hidden file, 1 .txt file and "
        "1 file without a known suffix"
    )
    assert passed_over(Entries(("a.jpg", "b.PNG"), ()), SUFFIXES) == ""
    assert passed_over(Entries((), ("a", "b", "c", "d")), SUFFIXES) == "4 folders (a, b, c, …)"


def test_entries_are_told_apart_by_what_links_lead_to(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, target in (("to_folder", "folder"), ("to_file.jpg", "a.jpg"), ("nowhere.jpg", "x"), ("loop", "loop")):
        (tmp_path / name).symlink_to(target)
    assert entries_of(tmp_path) == (
        ("a.jpg", "loop", "nowhere.jpg", "pipe.jpg", "to_file.jpg"),
        ("folder", "to_folder"),
    )
