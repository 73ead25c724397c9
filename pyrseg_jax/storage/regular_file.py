"""Read regular files, up to a limit: a named pipe would wait forever, and a device never ends."""

import io
import os
import stat
from pathlib import Path

from pyrseg_jax.errors import UserError, escaped

MAX_BYTES = 512 * 2**20  # far above any photograph or label map of a known data set

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def read_regular_file(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a file whole. Links are followed; what they lead to must be a regular file.

    Args:
      path: path of the file, on a local disk.
      max_bytes: a larger file is an error.

    Raises:
      UserError: if it is not a regular file, or too large.
      OSError: if it cannot be read.
    """
    with open_regular_file(path, max_bytes) as file:
        # In two parts, because Python sets aside memory for as many bytes as it is asked for. The second part is empty but for a
        # file that grows, or one in /proc, which has no size until it is read.
        data = file.read(os.fstat(file.fileno()).st_size + 1)
        data += file.read(max_bytes + 1 - len(data)) if data else b""
    if len(data) > max_bytes:
        raise _too_large(path, len(data), max_bytes)
    return data


def unreadable(path: Path, error: OSError | MemoryError) -> UserError:
    """Explain in one line, the same everywhere, why a file that was listed cannot be read."""
    if isinstance(error, MemoryError):
        return UserError(f"{path} cannot be read (there is not enough memory): close other programs")
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return UserError(f"{path} is a link to {os.readlink(path)}, which does not exist: repair or remove it")
    return UserError(f"{path} cannot be read ({error.strerror or error}): check the disk and the permissions")


def open_regular_file(path: Path, max_bytes: int = MAX_BYTES) -> io.BufferedIOBase:
    """Open a file that is too large to read whole. Arguments and errors are those of `read_regular_file`."""
    # Asked before opening, because opening a device can have effects; asked again after it, because the file may have changed.
    _check(path, os.stat(path), max_bytes)
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115 - the caller closes it
    try:
        _check(path, os.fstat(file.fileno()), max_bytes)
    except UserError:
        file.close()
        raise
    return file


def kind_of(mode: int) -> str:
    """Name the kind of a file, given the mode that `os.stat` returns."""
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def obstacle(path: Path) -> str | None:
    """Describe what is at a path if it must not be replaced by a file: a link, a folder, a device. None for a file or nothing."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(mode):
        return None
    return "a symbolic link" if stat.S_ISLNK(mode) else kind_of(mode)


def _check(path: Path, found: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UserError(
            f"{escaped(str(path))} is {kind_of(found.st_mode)}: expected a regular file; remove it or name another"
        )
    if found.st_size > max_bytes:
        raise _too_large(path, found.st_size, max_bytes)


def _too_large(path: Path, size: int, max_bytes: int) -> UserError:
    return UserError(
        f"{escaped(str(path))} has {size / 2**20:.0f} MiB or more, above the limit of {max_bytes / 2**20:.0f} MiB for such a "
        "file: remove it or name another"
    )
