"""One training at a time in a folder."""

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
    """Hold a lock while the context lasts; the system lets go of it when the process ends, however it does.

    Args:
      path: of the lock file, which says who holds it. It stays behind: a file without a living holder locks nothing.

    Raises:
      UserError: saying who holds it, if another process does.
    """
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{path.parent} is being trained in by {_holder(file.read())}: wait for its end, end it, or take another --workdir"
            ) from error
        except OSError as error:  # not every network disk knows locks
            log.warning("%s cannot be locked (%s): see to it that nothing else trains there", path.parent, error)
        file.truncate()
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": now}) + "\n")
        file.flush()
        yield


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (json.JSONDecodeError, KeyError, TypeError):
        return "another process"
