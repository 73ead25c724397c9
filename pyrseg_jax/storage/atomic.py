"""Atomic writes: a reader, or a restart after a crash, sees either the old content of a file or the new one, never a part.

A file is written under the name `NAME.XXXXXXXX.partial` (eight random hexadecimal digits) and renamed when all of it is on disk.
A process that is killed in between leaves such a file behind; `remove_leftovers` removes it. The writer holds a lock on the
file, so a leftover can be told from a file that is being written now.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from etils import epath

from pyrseg_jax.storage.paths import is_remote

log = logging.getLogger(__name__)

Buffer: TypeAlias = bytes | memoryview

_PARTIAL = re.compile(r"\.[0-9a-f]{8}\.partial")
# What some network and FUSE file systems answer to fsync and flock, which they do not have.
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)


def write_atomically(path: Path | epath.Path, text: str) -> None:
    """Write a text file (UTF-8) atomically."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path | epath.Path, content: Buffer) -> None:
    """Write a binary file atomically: whole or not at all. The folder must exist.

    A symbolic link at this path is replaced; what it leads to stays as it is.

    Raises:
      OSError: if the disk rejects the content; then nothing is left behind, and an older file stays as it was.
    """
    if is_remote(path):  # object stores write whole objects, so no partial file is needed
        path.write_bytes(bytes(content))
        return
    with _partial_of(Path(path)) as (partial, descriptor):
        rest = memoryview(content).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        with _where_supported():
            os.fsync(descriptor)  # otherwise a power failure could leave the new name with no content
        partial.replace(path)


class AtomicFile:
    """A file that is written piece by piece, and appears under its name, whole, when `commit` is called.

    Use it as a context: one that ends without `commit` leaves nothing behind. For remote storage, the pieces go to a temporary
    local file, which `commit` uploads.

    Args:
      path: path of the file. The folder must exist.

    Attributes:
      partial: path of the local file that holds the pieces.
      file: that file, open for writing; it can be sought.
    """

    def __init__(self, path: Path | epath.Path):
        self._path, self._held = path, contextlib.ExitStack()
        self._is_committed = False

    def __enter__(self) -> "AtomicFile":
        if is_remote(self._path):
            folder = self._held.enter_context(tempfile.TemporaryDirectory())
            self.partial = Path(folder) / "content"
            self.file = self._held.enter_context(self.partial.open("wb"))
        else:
            self.partial, descriptor = self._held.enter_context(_partial_of(Path(self._path)))
            self.file = self._held.enter_context(os.fdopen(os.dup(descriptor), "wb"))
        return self

    def commit(self) -> None:
        """Give the file its name; raises OSError if the disk rejects the content."""
        self.file.flush()
        if is_remote(self._path):
            with self.partial.open("rb") as source, epath.Path(self._path).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 22)
        else:
            with _where_supported():
                os.fsync(self.file.fileno())
            self.partial.replace(Path(self._path))
        self._is_committed = True

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # what is not committed is of no use, and what is was written already
            self._held.close()
        if not self._is_committed:
            with contextlib.suppress(OSError):
                self.partial.unlink()


def try_to_write(folder: Path | epath.Path) -> None:
    """Raise OSError if a file cannot be written into a local folder; call this before hours of computing. Nothing is left there."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(4096))  # a full disk may accept a file, but nothing in it
        probe.flush()


def remove_leftovers(folder: Path | epath.Path, names: Iterable[str] = ()) -> list[str]:
    """Remove the partial files that killed processes left in a folder.

    Args:
      folder: a folder on a local disk; remote storage and a folder that does not exist have none.
      names: names of files whose leftover is called `NAME.partial`, as earlier versions called them.

    Returns:
      The names of the removed files. Files that another process is writing stay, and so do those that cannot be removed.
    """
    if is_remote(folder):
        return []
    older = {f"{name}.partial" for name in names}
    try:
        found = sorted(name for name in os.listdir(folder) if _PARTIAL.search(name[-17:]) or name in older)
    except OSError:
        return []
    return [name for name in found if _remove_unless_locked(Path(folder) / name)]


@contextlib.contextmanager
def _partial_of(path: Path) -> Iterator[tuple[Path, int]]:
    """Create and lock a partial file of a new name; it is removed unless it was renamed."""
    created = None
    while created is None:
        created = _create_locked(path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial"))
    partial, descriptor = created
    try:
        yield partial, descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    finally:
        os.close(descriptor)


def _create_locked(partial: Path) -> tuple[Path, int] | None:
    """Create a file and lock it; return None if another process took it for a leftover before it was locked."""
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with _where_supported():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return partial, descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


@contextlib.contextmanager
def _where_supported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def _remove_unless_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with _where_supported():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:  # BlockingIOError: its writer is alive
        return False
    finally:
        os.close(descriptor)
    return True
