"""A lock file that keeps a second training out of a workdir."""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock for the duration of the context.

    The operating system releases the lock when the process ends, however it ends. The file itself stays behind, which is
    harmless: a file without a live holder locks nothing.

    Args:
      path: path of the lock file. Its content names the process that holds the lock.

    Raises:
      UserError: if another process holds the lock; the message names that process.
    """
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{path.parent} is being trained in by {_holder(file.read())}: wait until that run ends, end it, or choose "
                "another --workdir"
            ) from error
        except OSError as error:  # some network file systems do not support locks
            log.warning("%s cannot be locked (%s): make sure that nothing else trains there", path.parent, error)
        file.truncate()
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": now}) + "\n")
        file.flush()
        yield


def _holder(text: str) -> str:
    """Describe the process that wrote the lock file; a damaged file is described vaguely rather than raising."""
    try:
        holder = json.loads(text)
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (json.JSONDecodeError, KeyError, TypeError):
        return "another process"
