"""Read the files of a data set from a zip without unpacking it. The zip may come from a stranger."""

import os
import stat
import weakref
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from pyrseg_jax.data.listing import Entries
from pyrseg_jax.errors import UserError, naming_file, reason_of
from pyrseg_jax.storage.regular_file import MAX_BYTES as MAX_FILE_BYTES
from pyrseg_jax.storage.regular_file import kind_of, open_regular_file
from pyrseg_jax.storage.zip_directory import open_zip

FETCH_AGAIN = "fetch the file again"
MAX_BYTES = 2**42  # of the zip itself, which is never read whole
MAX_DIRECTORY_BYTES = 2**28  # of the table of contents: some three million files
_BLOCK = 2**20
# LZMA and bzip2 unpack a block whole, however large it becomes: 4 KiB become 100 MiB at most.
_SMALL_BLOCK = 2**12
_BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1  # bit of an entry's flags


class ZipArchive:
    """Files below a folder inside a zip. It can be pickled: each process opens the zip anew.

    Names are relative to that folder, with `/`. Backslashes, which some programs write, count as `/`.

    Raises:
      UserError: if the file is not a zip, is cut off, has an entry that leads out of its folder, or has two entries of one name.
    """

    def __init__(self, path: Path, base: str = ""):
        self._path, self._base = path, base
        self._open()

    def _open(self) -> None:
        with naming_file(str(self._path), "cannot be read as a zip", f"it may be cut off; {FETCH_AGAIN}"):
            file = open_regular_file(self._path, MAX_BYTES)
            weakref.finalize(self, file.close)
            found = os.fstat(file.fileno())
            try:
                self._zip = open_zip(file, MAX_DIRECTORY_BYTES)
            except UserError as error:
                raise UserError(
                    f"{self._path} cannot be read as a zip ({error}): unpack it, and name the folder"
                ) from error
            infos = self._zip.infolist()
        self._state = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self._entries: dict[str, tuple[list[str], set[str]]] = {}
        for info in infos:
            if not info.filename.endswith(("/", "\\")):  # those are folders
                self._add(info)

    def _add(self, info: zipfile.ZipInfo) -> None:
        text = info.filename.replace("\\", "/")
        name = PurePosixPath(text)
        if not name.name:
            raise UserError(f"{self._path} has an entry without a name ({info.filename!r}): {FETCH_AGAIN}")
        if name.is_absolute() or PureWindowsPath(text).drive or ".." in name.parts:
            raise UserError(
                f"{self._path}: the entry {info.filename!r} leads out of its folder, which no zip of a data set needs; "
                f"{FETCH_AGAIN} from a source that you trust"
            )
        if str(name) in self._infos:
            raise UserError(
                f"{self._path} has two entries of the name {str(name)!r}, and nothing says which one is meant: pack it again with "
                "one of them"
            )
        self._infos[str(name)] = info
        self._entries.setdefault(str(name.parent), ([], set()))[0].append(name.name)
        for folder in name.parents:
            if folder != PurePosixPath("."):
                self._entries.setdefault(str(folder.parent), ([], set()))[1].add(folder.name)

    def __getstate__(self) -> tuple:
        return self._path, self._base

    def __setstate__(self, state: tuple) -> None:
        self._path, self._base = state
        self._open()

    def __repr__(self) -> str:
        return f"ZipArchive({self._path})"

    def below(self, base: str) -> "ZipArchive":
        """Return the same zip, seen from a folder inside this one."""
        return ZipArchive(self._path, self._full(base))

    def folders(self) -> list[str]:
        """List the folders that hold files, by their full names."""
        return sorted(folder for folder, (files, _) in self._entries.items() if files)

    def place(self, name: str = "") -> str:
        """Describe where a file is, for messages."""
        inside = self._full(name)
        return f"{self._path}:{inside}" if name else str(self._path)

    def location(self) -> str:
        """Describe which zip this is, in a text that changes whenever the file is moved or changed."""
        return f"{self._path.resolve()} {self._base} {self._state}"

    def has_folder(self, name: str) -> bool:
        """Return whether there is a folder of this name that contains files."""
        return bool(self._entries.get(self._full(name), ([], set()))[0])

    def entries_in(self, folder: str) -> Entries:
        """List the names of the files and folders in a folder. What the folders contain is not listed."""
        files, folders = self._entries.get(self._full(folder), ([], set()))
        return Entries(tuple(sorted(files)), tuple(sorted(folders)))

    def read(self, name: str) -> bytes:
        """Read a file; raises UserError naming the file if that fails."""
        place = self.place(name)
        info = self._infos.get(self._full(name))
        if info is None:
            raise UserError(f"{place} is missing: {FETCH_AGAIN}, it seems incomplete")
        _check_entry(info, place)
        try:
            data = self._unpack(info)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(
                f"{place} cannot be unpacked ({reason_of(error)}): the zip is damaged; {FETCH_AGAIN}"
            ) from error
        except NotImplementedError as error:
            raise UserError(
                f"{place} cannot be unpacked ({reason_of(error)}): unpack the zip with another program, and name the folder"
            ) from error
        except Exception as error:
            raise UserError(
                f"{place} cannot be unpacked ({reason_of(error)}): check the disk, or {FETCH_AGAIN}"
            ) from error
        if len(data) > MAX_FILE_BYTES:  # the size in its header was wrong
            raise _too_large(place, len(data))
        return data

    def _unpack(self, info: zipfile.ZipInfo) -> bytes:
        size = _BLOCK if info.compress_type in _BOUNDED_METHODS else _SMALL_BLOCK
        blocks, num_bytes = [], 0
        with self._zip.open(info) as file:
            while num_bytes <= MAX_FILE_BYTES and (block := file.read(size)):
                blocks.append(block)
                num_bytes += len(block)
        return b"".join(blocks)

    def stamp(self, name: str) -> str:
        """Describe the content of a file by its size and checksum, which the zip records."""
        info = self._infos.get(self._full(name))
        return f"{name!r} missing" if info is None else f"{name!r} {info.file_size} {info.CRC:08x}"

    def outward_stamp(self, name: str) -> str:
        """Describe what the zip's list shows of a file, which is all that `stamp` uses, too."""
        return self.stamp(name)

    def _full(self, name: str) -> str:
        return str(PurePosixPath(self._base) / name)


def _check_entry(info: zipfile.ZipInfo, place: str) -> None:
    mode = info.external_attr >> 16
    kind = "a symbolic link" if stat.S_ISLNK(mode) else kind_of(mode)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise UserError(f"{place} is {kind}: expected a file; pack the zip again, with the file that is meant")
    if info.flag_bits & _ENCRYPTED:
        raise UserError(
            f"{place} cannot be unpacked without its password: unpack the zip with another program, and name the folder"
        )
    if info.file_size > MAX_FILE_BYTES:
        raise _too_large(place, info.file_size)


def _too_large(place: str, size: int) -> UserError:
    return UserError(
        f"{place} unpacks to {size / 2**20:.0f} MiB, above the limit of {MAX_FILE_BYTES / 2**20:.0f} MiB for one file: it is "
        "not an image or label map; remove it from the data set"
    )
