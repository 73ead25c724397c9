"""Folders and zips from strangers: pipes, devices, links, bombs, and entries that lie."""

import os
import re
import stat
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.data_sets import write_folder
from support.native_files import write_ade20k, zip_folder

from pyrseg_jax.data import zip_archive
from pyrseg_jax.data.archive import FolderArchive, ZipArchive, open_archive
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.report import make_report
from pyrseg_jax.errors import UserError


def problems_of(root) -> list[str]:
    dataset = open_dataset("folder", str(root), None)
    return [message for _, message in make_report(dataset.open_split("training"), dataset.label_space, "x").problems]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "is a named pipe: expected a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device: expected a regular file"),
        (lambda path: path.symlink_to("nowhere"), "is a link to nowhere, which does not exist"),
        (lambda path: path.symlink_to(path.name), "cannot be read .*symbolic links"),
    ],
)
@pytest.mark.parametrize("kind", ["images", "annotations"])
def test_a_pipe_device_or_broken_link_is_one_problem(tmp_path, make, message, kind):
    root = write_folder(tmp_path / "data", {"training": 3}, size=(8, 8))
    path = next((root / kind / "training").glob("training_1.*"))
    path.unlink()
    make(path)
    (problem,) = problems_of(root)
    assert re.search(rf"training_1\.\w+ {message}", problem)


def test_a_folder_with_the_name_of_an_image_is_no_image(tmp_path):
    root = write_folder(tmp_path / "data", {"training": 2}, size=(8, 8))
    (root / "images" / "training" / "x.jpg").mkdir()
    assert problems_of(root) == []
    with pytest.raises(UserError, match=r"x\.png has no image: expected .*and found 'x\.jpg' \(a folder\)"):
        (root / "annotations" / "training" / "x.png").write_bytes(b"")
        problems_of(root)


def test_a_root_that_is_a_pipe_or_a_broken_link_is_explained(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for name, message in (("pipe", "this is a named pipe"), ("link", "this link leads to nothing")):
        with pytest.raises(UserError, match=message):
            open_archive(str(tmp_path / name), ("images",), ("a.zip",), "a set")
        with pytest.raises(UserError, match=message):
            open_dataset("folder", str(tmp_path / name), None)


def write_zip(path, entries) -> ZipArchive:
    with zipfile.ZipFile(path, "w") as file:
        for entry, data in entries:
            file.writestr(entry, data)
    return ZipArchive(path)


def entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def test_links_and_pipes_in_a_zip_are_refused(tmp_path):
    link, pipe = entry("a/link.jpg", stat.S_IFLNK | 0o777), entry("a/pipe.jpg", stat.S_IFIFO | 0o644)
    archive = write_zip(tmp_path / "x.zip", [(link, "/etc/hosts"), (pipe, ""), ("a/b.jpg", "data")])
    assert archive.read("a/b.jpg") == b"data"
    with pytest.raises(UserError, match=r"x\.zip:a/link\.jpg is a symbolic link: expected a file"):
        archive.read("a/link.jpg")
    with pytest.raises(UserError, match=r"a/pipe\.jpg is a named pipe"):
        archive.read("a/pipe.jpg")


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "C:\\x", "..\\x", "\\\\host\\x"])
def test_entries_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="leads out of its folder"):
        write_zip(tmp_path / "x.zip", [(name, "")])


def test_backslashes_are_folders_and_two_entries_of_one_name_are_refused(tmp_path):
    archive = write_zip(tmp_path / "x.zip", [("a\\b.jpg", "1"), ("./c/d.jpg", "2"), ("e\\", "")])
    assert archive.read("a/b.jpg") == b"1" and archive.read("c/d.jpg") == b"2"
    assert archive.entries_in(".") == ((), ("a", "c"))
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        pytest.raises(UserError, match=r"two entries of the name 'a'"),
    ):
        write_zip(tmp_path / "y.zip", [("a", "1"), ("a", "2")])


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_entry_that_lies_about_its_size_is_not_unpacked_whole(tmp_path, monkeypatch, method):
    monkeypatch.setattr(zip_archive, "MAX_FILE_BYTES", 2**20)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("zeros.jpg", bytes(9_000_000))
        file.writestr("good.jpg", b"good" * 100)
    with pytest.raises(UserError, match=r"zeros\.jpg unpacks to 9 MiB, above the limit of 1 MiB"):
        ZipArchive(path).read("zeros.jpg")
    path.write_bytes(path.read_bytes().replace((9_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"zeros\.jpg cannot be unpacked .*the zip is damaged"):
        ZipArchive(path).read("zeros.jpg")
    assert ZipArchive(path).read("good.jpg") == b"good" * 100


def test_an_unknown_compression_and_a_huge_table_of_contents_are_explained(tmp_path, monkeypatch):
    path = tmp_path / "x.zip"
    write_zip(path, [("a.jpg", "1")])
    data = bytearray(path.read_bytes())
    data[8] = data[data.rindex(b"PK\x01\x02") + 10] = 97
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.jpg cannot be unpacked .*: unpack the zip with another program"):
        ZipArchive(path).read("a.jpg")
    monkeypatch.setattr(zip_archive, "MAX_DIRECTORY_BYTES", 10)
    with pytest.raises(UserError, match=r"its list of parts takes more than 0 MiB\): unpack it"):
        ZipArchive(path)


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("zip")
    return zip_folder(write_ade20k(folder, 2, 1), folder / "a.zip", with_parent=False).read_bytes()


@given(st.data())
def test_a_damaged_zip_gives_good_files_or_errors_that_name_it(packed, tmp_path, data):
    damaged = bytearray(packed)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.sampled_from([0, len(packed) - 600]))  # local headers, or the table of contents
        place = data.draw(st.integers(start, min(start + 700, len(packed) - 1)))
        damaged[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.zip"
    path.write_bytes(damaged[: data.draw(st.sampled_from([None, len(packed) - 10, 40]))])
    try:
        archive = open_archive(str(path), ("images/training",), (), "a set")
        for folder in archive.folders():
            for name in archive.entries_in(folder).files:
                archive.stamp(f"{folder}/{name}")
                archive.read(f"{folder}/{name}")
    except UserError as error:
        assert "damaged.zip" in str(error)


def test_names_that_are_not_text_are_read(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    archive = FolderArchive(tmp_path)
    (name,) = archive.entries_in(".").files
    assert archive.read(name) == b"x" and archive.stamp(name).encode()


def test_a_large_table_of_contents_that_only_the_long_record_tells_of_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_archive, "MAX_DIRECTORY_BYTES", 2**20)
    size, place = 2**21, 2**21
    long_record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, place, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 46, 0, 0)  # claims 46 bytes
    (tmp_path / "x.zip").write_bytes(bytes(size) + long_record + locator + end)
    with pytest.raises(UserError, match=r"its list of parts takes more than 1 MiB"):
        ZipArchive(tmp_path / "x.zip")
