"""The record of the files that a command wrote into a user's folder, so that it replaces these files and no others.

The record is a file in that folder, with one line of JSON per written content: the file's name, its size and its SHA-256. A line
is added before the file itself appears. So whatever a killed command leaves is recorded, and the same command can be run again. A
file that was changed afterwards has another SHA-256, and belongs to the user.
"""

import collections
import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.atomic import write_bytes_atomically
from pyrseg_jax.storage.documents import Document, parse_json
from pyrseg_jax.storage.regular_file import kind_of, read_regular_file

MAX_RECORD_BYTES = 2**30  # three files each of two million images


class Entry(Document):
    """A content that was written: the file's name, its length in bytes, and its SHA-256."""

    file: str
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class WrittenFiles:
    """The files of a folder that a command wrote, by the record in the folder.

    Attributes:
      path: path of the record, which need not exist.
      is_found: whether the record shows that the command wrote something before.
      is_foreign_itself: whether there is a file of this name that is not such a record. `start` replaces it.
    """

    def __init__(self, path: Path):
        self.path = path
        self._entries: dict[str, set[Entry]] = collections.defaultdict(set)
        entries = _read(path)
        self.is_found, self.is_foreign_itself = bool(entries), entries is None
        for entry in entries or ():
            self._entries[entry.file].add(entry)

    def start(self) -> None:
        """Create the record unless it exists; raises OSError if the folder cannot be written."""
        if self.is_foreign_itself:
            self.path.unlink()
        with self._opened():
            pass

    def is_foreign(self, path: Path) -> bool:
        """Return whether there is a file that the command did not write, or that was changed since."""
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return False
        # The size spares most foreign files from being read.
        if not stat.S_ISREG(found.st_mode) or found.st_size not in (e.size for e in self._entries[path.name]):
            return True
        return _entry_of(path.name, read_regular_file(path, found.st_size)) not in self._entries[path.name]

    def write(self, path: Path, content: bytes, overwrite: bool = False) -> None:
        """Record a content, then write it atomically.

        Args:
          path: a file in the record's folder.
          content: all of its bytes.
          overwrite: whether a file that the command did not write may be replaced.

        Raises:
          UserError: if there is something by now that may not be replaced.
          OSError: if the disk is full, for example.
        """
        found = obstacle(path)
        if found or (not overwrite and self.is_foreign(path)):
            raise UserError(
                f"{path} has appeared in the meantime and is {found or 'not a file of this command'}: it is not replaced; move "
                "it, and run the command again"
            )
        self._add(_entry_of(path.name, content))
        write_bytes_atomically(path, content)

    def discard(self, path: Path) -> None:
        """Remove a file of an earlier run that no longer fits to the others; a file of somebody else stays."""
        if os.path.lexists(path) and not self.is_foreign(path):
            path.unlink()

    def _add(self, entry: Entry) -> None:
        if entry in self._entries[entry.file]:
            return
        line = (entry.model_dump_json() + "\n").encode()
        with self._opened() as file:
            size = os.lseek(file, 0, os.SEEK_END)
            if os.write(file, line) != len(line):
                os.ftruncate(file, size)  # a torn line would also spoil the next one
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._entries[entry.file].add(entry)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the record for appending, one process at a time: several may write different images into one folder."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            with contextlib.suppress(OSError):  # some network file systems do not support locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)


def obstacle(path: Path) -> str | None:
    """Describe what is at a path if it must not be replaced by a file: a link, a folder, a device. None for a file or nothing."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(mode):
        return None
    return "a symbolic link" if stat.S_ISLNK(mode) else kind_of(mode)


def _entry_of(name: str, content: bytes) -> Entry:
    return Entry(file=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _read(path: Path) -> list[Entry] | None:
    """Read a record; None if the file is not one. Only the first line decides that, because a full disk may tear others."""
    if not os.path.lexists(path):
        return []
    if obstacle(path):
        return None
    entries = []
    for number, line in enumerate(read_regular_file(path, MAX_RECORD_BYTES).splitlines()):
        try:
            entries.append(parse_json(line, Entry, path))
        except UserError:
            if number == 0:
                return None
    return entries
