"""Simulate a full disk by a limit on the size of this process's files."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """Let every write beyond this many bytes of a file fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
