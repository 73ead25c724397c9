"""Tars from strangers: links, devices, entries that lie or lead out, bombs, and damage."""

import io
import pickle
import random
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrseg_jax.data import tar_archive
from pyrseg_jax.data.archive import open_archive
from pyrseg_jax.data.tar_archive import TarArchive
from pyrseg_jax.errors import UserError

FILES = {"set/images/a.jpg": b"first" * 300, "set/images/b.jpg": b"", "set/list.txt": b"a\nb\n"}


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **attributes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def pack(path: Path, entries, mode="w", **options) -> Path:
    with tarfile.open(path, mode, **options) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("prefix", ["", "./", "ä/" + "long/" * 40])
def test_files_come_back_as_they_were_packed_in_any_order(tmp_path, form, mode, prefix):
    if form == tarfile.USTAR_FORMAT and len(prefix) > 100:
        pytest.skip("this format has no long names")
    entries = [entry(prefix + name, data) for name, data in FILES.items()]
    path = pack(tmp_path / "set.bin", entries, mode, format=form)
    archive = open_archive(str(path), ("images",), (), "a set")
    assert isinstance(archive, TarArchive)
    assert archive.entries_in(".") == (("list.txt",), ("images",))
    assert archive.has_folder("images") and not archive.has_folder("labels")
    for copy in (archive, pickle.loads(pickle.dumps(archive))):
        for name, data in random.Random(0).sample(sorted(FILES.items()), 3):
            assert copy.read(name.removeprefix("set/")) == data
    inner = archive.below("images")
    assert inner.read("a.jpg") == FILES["set/images/a.jpg"] and inner.place("a.jpg").endswith("set/images/a.jpg")


def test_the_state_of_a_file_changes_with_the_tar(tmp_path):
    path = pack(tmp_path / "a.tar", [entry("x/a.jpg", b"1234")])
    before = TarArchive(path)
    pack(path, [entry("x/a.jpg", b"4321")])
    after = TarArchive(path)
    assert before.stamp("x/a.jpg") != after.stamp("x/a.jpg") and before.location() != after.location()
    assert after.stamp("x/none").startswith("'x/none' missing")
    with pytest.raises(UserError, match=r"a\.tar:x/none is missing: fetch the file again, it seems incomplete"):
        after.read("x/none")


def test_a_tar_that_shrinks_while_it_is_read_is_cut_off(tmp_path):
    path = pack(tmp_path / "a.tar", [entry("x/a.jpg", b"1234" * 500)])
    archive = TarArchive(path)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match=r"a\.tar:x/a\.jpg is cut off \(488 of 2000 bytes\): fetch the file again"):
        archive.read("x/a.jpg")


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("link", tarfile.SYMTYPE, "a symbolic link"),
        ("hard", tarfile.LNKTYPE, "a hard link"),
        ("pipe", tarfile.FIFOTYPE, "a named pipe"),
        ("zero", tarfile.CHRTYPE, "a device"),
    ],
)
def test_what_is_not_a_file_is_not_followed(tmp_path, name, kind, word):
    path = pack(tmp_path / "a.tar", [entry("x/a.jpg", b"1"), entry(f"x/{name}", kind=kind, linkname="/etc/hosts")])
    archive = TarArchive(path)
    with pytest.raises(UserError, match=rf"a\.tar:x/{name} is {word}: expected a regular file"):
        archive.read(f"x/{name}")
    assert archive.read("x/a.jpg") == b"1"


@pytest.mark.parametrize("name", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg"])
def test_entries_that_lead_out_are_refused(tmp_path, name):
    path = pack(tmp_path / "a.tar", [entry(name, b"1")])
    with pytest.raises(UserError, match=r"a\.tar: the entry '.*' leads out of its folder"):
        TarArchive(path)


def test_a_name_of_endless_length_is_refused(tmp_path):
    path = pack(tmp_path / "a.tar", [entry("a/" * 10_000 + "x", b"1")])
    with pytest.raises(UserError, match=r"a\.tar has an entry whose name has 20,001 characters, more than 1,000"):
        TarArchive(path)


def test_two_entries_of_one_name_are_refused(tmp_path):
    path = pack(tmp_path / "a.tar", [entry("a/x", b"1"), entry("./a/x", b"2")])
    with pytest.raises(UserError, match=r"a\.tar has two entries of the name 'a/x'"):
        TarArchive(path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_large_things_are_refused_before_they_are_read(tmp_path, monkeypatch, mode):
    path = pack(tmp_path / "a.tar.gz", [entry("a/x", bytes(3_000_000)), entry("a/y", b"1")], mode)
    monkeypatch.setattr(tar_archive, "MAX_FILE_BYTES", 2**20)
    with pytest.raises(UserError, match=r"a/x has 3 MiB, above the limit of 1 MiB for one file"):
        TarArchive(path).read("a/x")
    monkeypatch.setattr(tar_archive, "MAX_ENTRIES", 1)
    with pytest.raises(UserError, match=r"has more than 1 entries: unpack it, and name the folder"):
        TarArchive(path)
    monkeypatch.setattr(tar_archive, "MAX_UNPACKED_BYTES", 2**20)
    if mode == "w:gz":
        with pytest.raises(UserError, match=r"a\.tar\.gz unpacks to more than 1 MiB: unpack it, and name the folder"):
            TarArchive(path)


def test_a_full_temporary_folder_is_named(tmp_path, monkeypatch):
    path = pack(tmp_path / "a.tar.gz", [entry("a/x", b"1")], "w:gz")
    full = tempfile.TemporaryFile  # noqa: SIM115 - replaced below

    def fail(*args, **kwargs):
        file = full(*args, **kwargs)

        class Full:
            fileno, close = file.fileno, file.close

            def write(self, block):
                raise OSError(28, "No space left on device")

        return Full()

    monkeypatch.setattr(tar_archive.tempfile, "TemporaryFile", fail)
    with pytest.raises(UserError, match=r"cannot be unpacked to .* \(No space left on device\): unpack it elsewhere"):
        TarArchive(path)


def lying(size: bytes) -> bytes:
    """Return a tar whose second entry has this text in the field for its size, with a checksum that fits."""
    buffer = io.BytesIO()
    pack_into = tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
    for info, data in (entry("a/x", b"1" * 512), entry("a/y", b"2" * 512)):
        pack_into.addfile(info, io.BytesIO(data))
    pack_into.close()
    data = bytearray(buffer.getvalue())
    header = data[1024:1536]
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1024:1536] = header
    return bytes(data)


@pytest.mark.parametrize(
    "size",
    [
        b"\xff" * 12,
        b"\xff" * 10 + b"\xfc\x00",
        b"\x80" + b"\x00" * 3 + b"\xff" * 8,
        b"77777777777\0",
        b"not a size\0\0",
    ],
    ids=["-1", "back to the start", "huge", "8 GiB", "no number"],
)
def test_a_size_that_is_a_lie_neither_hangs_nor_takes_memory(tmp_path, size):
    path = tmp_path / "a.tar"
    path.write_bytes(lying(size))
    try:
        archive = TarArchive(path)
    except UserError as error:
        assert "a.tar cannot be read as a tar" in str(error)
        return
    assert archive.read("a/x") == b"1" * 512
    with pytest.raises(UserError, match=r"a/y (is missing|has \d+ MiB|is cut off)"):
        archive.read("a/y")


@pytest.fixture(scope="module", params=["w", "w:gz"])
def packed(request, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    return pack(path, [entry(name, data) for name, data in FILES.items()], request.param).read_bytes()


@given(st.data())
def test_a_damaged_tar_gives_files_or_errors_that_name_it(packed, tmp_path, data):
    damaged = bytearray(packed)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, min(len(packed), 4096) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.tar"
    path.write_bytes(damaged[: data.draw(st.sampled_from([None, len(packed) // 2, 600, 40, 0]))])
    try:
        archive = TarArchive(path)
        for folder in archive.folders():
            for name in archive.entries_in(folder).files:
                archive.stamp(f"{folder}/{name}")
                archive.read(f"{folder}/{name}")
    except UserError as error:
        assert "damaged.tar" in str(error) and "\n" not in str(error)
