"""A lock file that keeps a second training out of a workdir."""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.regular_file import kind_of

log = logging.getLogger(__name__)

MAX_BYTES = 4096  # of a lock file that are read
# Never through a link to another file, and never waiting for the other end of a named pipe.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Holder(documents.Document):
    """The content of a lock file: the process that holds the lock."""

    host: str
    process: int
    since: str


@contextlib.contextmanager
def locked(path: Path, activity: str = "trained in", option: str = "--workdir") -> Iterator[None]:
    """Hold a lock for the duration of the context.

    The operating system releases the lock when the process ends, however it ends. The file itself stays behind, which is
    harmless: a file without a live holder locks nothing.

    Args:
      path: path of the lock file. Its content names the process that holds the lock.
      activity: what the holder does with the folder, for the message.
      option: the flag that names the folder.

    Raises:
      UserError: if another process holds the lock; the message names that process. Also if the path is not a regular file.
      OSError: if the file cannot be written.
    """
    descriptor = open_lock_file(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{path.parent} is being {activity} by {_holder(os.read(descriptor, MAX_BYTES), path)}: wait until that run "
                f"ends, end it, or choose another {option}"
            ) from error
        except OSError as error:  # some network file systems do not support locks
            log.warning("%s cannot be locked (%s): make sure that nothing else trains there", path.parent, error)
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        holder = {"host": socket.gethostname(), "process": os.getpid(), "since": now}
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(holder).encode() + b"\n")
        yield
    finally:
        os.close(descriptor)


def open_lock_file(path: Path) -> int:
    """Open a file to lock it, created if necessary, and return its descriptor.

    Raises:
      UserError: if there is something else than a regular file: locking must not change what a link leads to, or wait at a pipe.
      OSError: if the file cannot be written.
    """
    try:
        found = path.lstat().st_mode
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISREG(found):
            kind = "a symbolic link" if stat.S_ISLNK(found) else kind_of(found)
            raise UserError(f"{path} is {kind}: expected a regular file; remove it")
    return os.open(path, _FLAGS, 0o644)


def _holder(content: bytes, path: Path) -> str:
    """Describe the process that wrote the lock file; a damaged file is described vaguely rather than raising."""
    try:
        holder = documents.parse_json(content, Holder, path)
    except UserError:
        return "another process"
    return f"process {holder.process} on {holder.host} since {holder.since}"
