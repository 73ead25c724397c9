"""Read the files of a data set from a folder on a local disk."""

import os
from pathlib import Path

from pyrseg_jax.data.listing import Entries, entries_of
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.storage.regular_file import read_regular_file, unreadable


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

    def below(self, base: str) -> "FolderArchive":
        """Return the files of a folder inside this one."""
        return FolderArchive(self._base / base)

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
