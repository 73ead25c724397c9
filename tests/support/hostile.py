"""What must hold for whatever bytes a reader is given: a valid object, or one clear line; and no effects on the machine.

`benchmarks/fuzz.py` tries random bytes on each reader of `support.hostile_readers`, and `tests/test_fuzz_corpus.py` replays the
inputs that it kept.
"""

import contextlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pyrseg_jax.errors import UserError, escaped

MAX_SECONDS = 5.0
MAX_LINE = 2000  # characters: a path, a name of a class and a reason of another library, each at its longest
# Bytes that reading one small file may add to the address space: pixels in RGB and two copies of them.
MEMORY = 6 * 2**30
NO_MEMORY = "there is not enough memory"  # how `errors.reason_of` describes a MemoryError

# What a reader may never do. The names are those of Python's audit events.
FORBIDDEN = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn", "socket.connect",
    "socket.bind", "socket.getaddrinfo", "pickle.find_class", "ctypes.dlopen", "webbrowser.open",
)  # fmt: skip
# Events whose first argument is a path that is changed.
CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
)


class Violation(Exception):
    """A reader did what no reader may do."""


class _Guard:
    """Watches what the code does while `root` is set; the audit hook itself can never be removed."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.found: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.root is None:
            return
        if event in FORBIDDEN:
            self.found.append(f"{event}{arguments!r}"[:200])
        elif event == "open" and self._is_written(arguments[1], arguments[2]) or event in CHANGES:
            self._check(event, arguments[0])

    def _is_written(self, mode: str | None, flags: int) -> bool:
        writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        return bool(flags & writing) if isinstance(flags, int) else bool(set(mode or "") & set("wax+"))

    def _check(self, event: str, path: object) -> None:
        if isinstance(path, int) or self.root is None:  # a file that is open already
            return
        full = os.path.abspath(os.fsdecode(path) if isinstance(path, bytes | str | os.PathLike) else str(path))
        # Libraries write compiled modules and null devices; nothing else outside the folder of this trial.
        if not full.startswith(self.root) and "__pycache__" not in full and full != os.devnull:
            self.found.append(f"{event} of {full}")


_guard: _Guard | None = None


@contextlib.contextmanager
def guarded(root: Path) -> Iterator[None]:
    """Raise Violation at the end if the code starts a program, connects, unpickles, or writes outside `root`."""
    global _guard
    _guard = _guard or _Guard()
    _guard.root, _guard.found = str(root.resolve()), []
    try:
        yield
    finally:
        _guard.root = None
        if _guard.found:  # whatever else was raised
            raise Violation("; ".join(_guard.found))


@contextlib.contextmanager
def bounded_memory(num_bytes: int = MEMORY) -> Iterator[None]:
    """Let this process reserve at most so much more address space, so that a bomb ends in a MemoryError and not in swap."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def trial(read: Callable[[bytes, Path], None], data: bytes, max_seconds: float = MAX_SECONDS) -> str:
    """Give bytes to a reader and check what comes of it.

    Args:
      read: the reader: it gets the bytes and an empty folder that it may write to, checks the object it has read with assertions,
        and raises UserError for what it refuses.
      data: the bytes.
      max_seconds: how much time of the processor it may take.

    Returns:
      "" if the bytes were accepted, or the line that says why not.

    Raises:
      Violation: if the line is empty or too long, memory or time ran out, or `guarded` found something.
      Exception: whatever else the reader raises: that, too, is a fault.
    """
    with tempfile.TemporaryDirectory() as place, guarded(Path(place)):
        start, line = time.process_time(), ""
        try:
            with bounded_memory():
                read(data, Path(place))
        except UserError as error:
            line = _check_line(str(error))
        seconds = time.process_time() - start
    if seconds > max_seconds:
        raise Violation(f"took {seconds:.1f} s for {len(data)} bytes")
    return line


def warm_up(read: Callable[[bytes, Path], None], data: bytes) -> None:
    """Read once without any check: the first use of a library imports modules, opens files and takes its time."""
    with tempfile.TemporaryDirectory() as place, contextlib.suppress(Exception):
        read(data, Path(place))


def _check_line(message: str) -> str:
    line = escaped(message)  # as the command line prints it: a line break in a name is shown as an escape
    if not line.strip() or len(line) > MAX_LINE:
        raise Violation(f"a message of {len(line)} characters: {line[:200]!r}")
    if NO_MEMORY in line or "MemoryError" in line:
        raise Violation(f"memory ran out: {line}")
    return line
