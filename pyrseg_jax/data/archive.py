"""Read the files of a data set from a folder, or from a zip without unpacking it."""

import os
from collections.abc import Sequence
from pathlib import Path

from pyrseg_jax.data.listing import Entries, entries_of
from pyrseg_jax.data.zip_archive import ZipArchive
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.storage.regular_file import kind_of, read_regular_file, unreadable


class FolderArchive:
    """Files below a folder. Names are relative, with `/`."""

    def __init__(self, base: Path):
        self._base = base

    def __repr__(self) -> str:
        return f"FolderArchive({self._base})"

    def place(self, name: str = "") -> str:
        """Describe where a file is, for messages."""
        return str(self._base / name)

    def location(self) -> str:
        """Describe which folder this is, in a text that changes when it is moved."""
        return os.path.realpath(self._base)

    def has_folder(self, name: str) -> bool:
        """Return whether there is a folder of this name."""
        return (self._base / name).is_dir()

    def entries_in(self, folder: str) -> Entries:
        """List the names of the files and folders in a folder. What the folders contain is not listed.

        Raises:
          UserError: naming the folder, if it cannot be read.
        """
        with naming_file(self.place(folder), "cannot be listed", "check that it is a folder, and its permissions"):
            return entries_of(self._base / folder)

    def read(self, name: str) -> bytes:
        """Read a file; raises UserError naming the file if that fails, or if it is not a regular file of a sensible size."""
        path = self._base / name
        try:
            return read_regular_file(path)
        except (OSError, MemoryError) as error:
            if isinstance(error, FileNotFoundError) and not path.is_symlink():
                raise UserError(f"{path} is missing: add it, or take its name out of the data set's lists") from error
            raise unreadable(path, error) from error

    def stamp(self, name: str) -> str:
        """Describe the state of a file so that no change of it goes unnoticed.

        Its size and time of change may be those of another file: `cp -p` and `touch` set times. Nobody can set the time when
        the system last noted a change (ctime), nor give two files on one disk the same number (inode).
        """
        try:
            found = (self._base / name).stat()
        except OSError as error:
            return f"{name!r} {type(error).__name__}"
        return f"{name!r} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"

    def outward_stamp(self, name: str) -> str:
        """Describe what `ls` shows of a file: its size and time of change. A disk that fails changes neither."""
        try:
            found = (self._base / name).stat()
        except OSError as error:
            return f"{name!r} {type(error).__name__}"
        return f"{name!r} {found.st_size} {found.st_mtime_ns}"


Archive = FolderArchive | ZipArchive


def open_archive(root: str, markers: Sequence[str], zip_names: Sequence[str], what: str) -> Archive:
    """Find a data set's files: the unpacked folder, the zip, or a folder that holds one of them.

    Args:
      root: file or folder, as the user gives it.
      markers: folders that the data set has, like `images/training`; one of them is enough to recognize it.
      zip_names: names that the published file may have.
      what: name of the data set, for messages.

    Raises:
      UserError: saying what was expected, if nothing is found.
    """
    path = Path(root).expanduser()
    expected = (
        f"the unpacked folder of {what} (with {' or '.join(markers)} in it), or the file {' or '.join(zip_names)}"
    )
    if path.is_file():
        return _inside_zip(path, markers, expected)
    if not path.is_dir():
        raise UserError(f"root={root}: {describe_absence(path)} ({path.absolute()}); name {expected}")
    for base in (path, *sorted(path.glob("*/")), *sorted(path.glob("*/*/"))):
        if any((base / marker).is_dir() for marker in markers):
            return FolderArchive(base)
    for name in zip_names:
        if (path / name).is_file():
            return _inside_zip(path / name, markers, expected)
    raise UserError(f"root={root} holds no such files: name {expected}")


def describe_absence(path: Path) -> str:
    """Say why a path is neither a file nor a folder, in words that agree with what `ls` shows."""
    try:
        return f"this is {kind_of(path.stat().st_mode)}"
    except FileNotFoundError:
        return "this link leads to nothing" if path.is_symlink() else "there is no such file or folder"
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"


def _inside_zip(path: Path, markers: Sequence[str], expected: str) -> ZipArchive:
    archive = ZipArchive(path)
    for folder in archive.folders():
        for marker in markers:
            if folder == marker or folder.endswith("/" + marker):
                base = folder.removesuffix(marker).rstrip("/")
                return archive.below(base) if base else archive
    raise UserError(f"{path} is a different zip file: expected {expected}")
