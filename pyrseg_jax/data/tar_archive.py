"""Read the files of a data set from a tar without unpacking it. The tar may come from a stranger."""

import gzip
import io
import os
import tarfile
import tempfile
import weakref
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, cast

from pyrseg_jax.data.listing import Entries
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.storage.regular_file import MAX_BYTES as MAX_FILE_BYTES
from pyrseg_jax.storage.regular_file import open_regular_file

FETCH_AGAIN = "fetch the file again"
MAX_BYTES = 2**42  # of the tar itself, which is never read whole
MAX_UNPACKED_BYTES = (
    2**32
)  # of a compressed tar; the largest published one here has 31 MB, of files that are compressed themselves
MAX_ENTRIES = 1_000_000
MAX_NAME = 1_000  # characters of an entry's name with its folders
SUFFIXES = (".tar", ".tar.gz", ".tgz")
_GZIP = b"\x1f\x8b"
_BLOCK = 2**20
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


def is_tar(path: Path) -> bool:
    """Return whether a file is a tar, compressed with gzip or not, by its first bytes or its name."""
    if path.name.lower().endswith(SUFFIXES):
        return True
    advice = "check the disk and the permissions"
    with naming_file(str(path), "cannot be read", advice), open_regular_file(path, MAX_BYTES) as file:
        head = file.read(262)
    return head.startswith(_GZIP) or head[257:] == b"ustar"


class _Entry(NamedTuple):
    """A file in a tar: what it is unless it is a regular file, where its bytes are, and its time of change."""

    kind: str | None
    start: int
    size: int
    mtime: float


class _Contents:
    """The table of contents of a tar, and the open file."""

    def __init__(self, path: Path):
        with naming_file(str(path), "cannot be read as a tar", f"it may be cut off; {FETCH_AGAIN}"):
            file = open_regular_file(path, MAX_BYTES)
            weakref.finalize(self, file.close)
            found = os.fstat(file.fileno())
            self.outward_state = f"{found.st_size} {found.st_mtime_ns}"
            self.state = f"{self.outward_state} {found.st_ctime_ns} {found.st_ino}"
            if file.read(2) == _GZIP:
                file = _unpacked(file, path)
                weakref.finalize(self, file.close)
            self.file = file
            self.entries = _list(file, path)
        self.folders: dict[str, tuple[list[str], set[str]]] = {}
        for text in self.entries:
            name = PurePosixPath(text)
            self.folders.setdefault(str(name.parent), ([], set()))[0].append(name.name)
            for folder in name.parents:
                if folder != PurePosixPath("."):
                    self.folders.setdefault(str(folder.parent), ([], set()))[1].add(folder.name)


class TarArchive:
    """Files below a folder inside a tar, which may be compressed with gzip. It can be pickled: each process opens the tar anew.

    Names are relative to that folder, with `/`. A compressed tar is unpacked into a temporary file without a name, because gzip
    cannot be read in any order.

    Raises:
      UserError: if the file is not a tar, is cut off, has an entry that leads out of its folder, or has two entries of one name.
    """

    def __init__(self, path: Path, base: str = "", contents: _Contents | None = None):
        self._path, self._base = path, base
        self._contents = contents or _Contents(path)

    def __getstate__(self) -> tuple:
        return self._path, self._base

    def __setstate__(self, state: tuple) -> None:
        self._path, self._base = state
        self._contents = _Contents(self._path)

    def __repr__(self) -> str:
        return f"TarArchive({self._path})"

    def below(self, base: str) -> "TarArchive":
        """Return the same tar, seen from a folder inside this one."""
        return TarArchive(self._path, self._full(base), self._contents)

    def folders(self) -> list[str]:
        """List the folders that hold files, by their full names."""
        return sorted(folder for folder, (files, _) in self._contents.folders.items() if files)

    def place(self, name: str = "") -> str:
        """Describe where a file is, for messages."""
        return f"{self._path}:{self._full(name)}" if name else str(self._path)

    def location(self) -> str:
        """Describe which tar this is, in a text that changes whenever the file is moved or changed."""
        return f"{self._path.resolve()} {self._base} {self._contents.state}"

    def has_folder(self, name: str) -> bool:
        """Return whether there is a folder of this name that contains files."""
        return bool(self._contents.folders.get(self._full(name), ([], set()))[0])

    def entries_in(self, folder: str) -> Entries:
        """List the names of the files and folders in a folder. What the folders contain is not listed."""
        files, folders = self._contents.folders.get(self._full(folder), ([], set()))
        return Entries(tuple(sorted(files)), tuple(sorted(folders)))

    def read(self, name: str) -> bytes:
        """Read a file; raises UserError naming the file if that fails."""
        place = self.place(name)
        entry = self._contents.entries.get(self._full(name))
        if entry is None:
            raise UserError(f"{place} is missing: {FETCH_AGAIN}, it seems incomplete")
        if entry.kind is not None:
            raise UserError(
                f"{place} is {entry.kind}: expected a regular file; pack the tar again, with the file that is meant"
            )
        if entry.size > MAX_FILE_BYTES:
            raise UserError(
                f"{place} has {entry.size / 2**20:.0f} MiB, above the limit of {MAX_FILE_BYTES / 2**20:.0f} MiB for one file: it "
                "is not an image or label map; remove it from the data set"
            )
        with naming_file(place, "cannot be read", f"check the disk, or {FETCH_AGAIN}"):
            data = os.pread(self._contents.file.fileno(), entry.size, entry.start)
        if len(data) < entry.size:
            raise UserError(f"{place} is cut off ({len(data)} of {entry.size} bytes): {FETCH_AGAIN}")
        return data

    def stamp(self, name: str) -> str:
        """Describe the state of a file so that no change of it goes unnoticed. A tar has no checksums, so its own state counts."""
        return f"{self._describe(name)} {self._contents.state}"

    def outward_stamp(self, name: str) -> str:
        """Describe what lists show of the file and of the tar: sizes and times of change."""
        return f"{self._describe(name)} {self._contents.outward_state}"

    def _describe(self, name: str) -> str:
        entry = self._contents.entries.get(self._full(name))
        return f"{name!r} missing" if entry is None else f"{name!r} {entry.size} {entry.mtime} at {entry.start}"

    def _full(self, name: str) -> str:
        return str(PurePosixPath(self._base) / name)


def _unpacked(file: io.BufferedIOBase, path: Path) -> io.BufferedIOBase:
    """Unpack a gzip file into a temporary file that disappears when it is closed."""
    file.seek(0)
    num_bytes, target = 0, tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with gzip.GzipFile(fileobj=file) as source:
        while block := source.read(_BLOCK):
            num_bytes += len(block)
            if num_bytes > MAX_UNPACKED_BYTES:
                raise UserError(
                    f"{path} unpacks to more than {MAX_UNPACKED_BYTES / 2**20:.0f} MiB: unpack it, and name the folder"
                )
            try:
                target.write(block)
                target.flush()
            except OSError as error:
                raise UserError(
                    f"{path} cannot be unpacked to {tempfile.gettempdir()} ({error.strerror or error}): unpack it elsewhere, and "
                    "name the folder"
                ) from error
    return cast(io.BufferedIOBase, target)


class _Bounded:
    """A file that never sets aside memory for more bytes than it has: the sizes in a tar may be lies."""

    def __init__(self, file: io.BufferedIOBase):
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, max(self._size - self._file.tell(), 0)))


def _list(file: io.BufferedIOBase, path: Path) -> dict[str, _Entry]:
    """Return name → entry, for everything but folders."""
    file.seek(0)
    entries: dict[str, _Entry] = {}
    num_entries = 0
    with tarfile.open(fileobj=cast(BinaryIO, _Bounded(file)), mode="r:") as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - it would keep every entry in memory
            num_entries += 1
            if num_entries > MAX_ENTRIES:
                raise UserError(f"{path} has more than {MAX_ENTRIES:,} entries: unpack it, and name the folder")
            if info.size < 0:
                raise tarfile.ReadError("an entry has a negative size")
            if not info.isdir():
                _add(entries, info, path)
    return entries


def _add(entries: dict[str, _Entry], info: tarfile.TarInfo, path: Path) -> None:
    name = PurePosixPath(info.name)
    if len(info.name) > MAX_NAME:
        raise UserError(
            f"{path} has an entry whose name has {len(info.name):,} characters, more than {MAX_NAME:,}: no file of a data set "
            f"does; {FETCH_AGAIN}"
        )
    if not name.name:
        raise UserError(f"{path} has an entry without a name ({info.name!r}): {FETCH_AGAIN}")
    if name.is_absolute() or ".." in name.parts:
        raise UserError(
            f"{path}: the entry {info.name!r} leads out of its folder, which no tar of a data set needs; {FETCH_AGAIN} from a "
            "source that you trust"
        )
    if str(name) in entries:
        raise UserError(
            f"{path} has two entries of the name {str(name)!r}, and nothing says which one is meant: pack it again with one of "
            "them"
        )
    is_plain = info.isreg() and not info.issparse()
    kind = None if is_plain else _KINDS.get(info.type, "a special file")
    entries[str(name)] = _Entry(kind, info.offset_data, info.size, info.mtime)
