"""What the program writes to a terminal or into a log: streams that never fail, and lines that nobody can forge."""

import codecs
import io
import logging
import os
import sys
import warnings
from typing import TextIO

from pyrseg_jax.errors import escaped
from pyrseg_jax.run.quiet import NOISY_LIBRARIES, TRACING_LIBRARIES

# The name of our way to write characters that a stream's encoding does not have; see `codecs.register_error`.
PLAINLY = "pyrseg_plainly"
BROKEN_PIPE = 141  # what a shell reports after SIGPIPE: 128 + 13
# How to write characters of our messages where the terminal has only ASCII.
_PLAIN = {
    "×": "x",
    "…": "...",
    "–": "-",
    "—": "-",
    "−": "-",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "·": "*",
    "±": "+-",
    "τ": "tau",
}


class Output(io.TextIOWrapper):
    """A standard stream that never raises: a full disk or a closed pipe must not end work that is nearly finished.

    Attributes:
      failure: the first error of a write, or None. After it, everything goes to the null device.
    """

    failure: OSError | None = None

    def write(self, text: str) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]  # the base names its argument __s
        """Write a text, or drop it after a failure."""
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Hand everything over to the system."""
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.failure = self.failure or error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


class LineFormatter(logging.Formatter):
    """Format a record as one line: names of files and classes in it cannot begin a line or steer the terminal.

    Tracebacks of `--debug` stay as they are.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base class gives the name
        """Escape the message, then format it."""
        record.message = escaped(record.message)
        return super().formatMessage(record)


def prepare_streams() -> None:
    """Make the standard streams of this process safe to write to. Call this once, before anything is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # A closed one would be given to the next file that is opened, and printing would then write into that file.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115  # stays open until the process ends
    sys.stdout = sys.__stdout__ = _safe(sys.stdout, 1)
    sys.stderr = sys.__stderr__ = _safe(sys.stderr, 2)
    logging.raiseExceptions = False
    # Python starts a process that removes shared memory and semaphores that a killed program leaves. It would warn of each of
    # them, after the last line of the program itself.
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")


def final_status(status: int) -> int:
    """Flush the standard streams and return the exit status: one that says so if standard output was lost."""
    failure = None
    if isinstance(sys.stdout, Output):
        sys.stdout.flush()
        failure = sys.stdout.failure
    if isinstance(failure, BrokenPipeError):
        status = status or BROKEN_PIPE
    elif failure is not None:
        print_error(
            f"standard output could not be written ({failure.strerror or failure}): make room, then run it again"
        )
        status = status or 1
    if isinstance(sys.stderr, Output):
        sys.stderr.flush()
    return status


def print_error(message: str) -> None:
    """Print `error: MESSAGE` as one line of standard error."""
    print(f"error: {escaped(message)}", file=sys.stderr)


def configure_logging(is_debugging: bool) -> None:
    """Log to standard error, one line per record, and silence other libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    warnings.showwarning = _log_warning
    for library in NOISY_LIBRARIES:
        logging.getLogger(library).setLevel(logging.ERROR)
    if not is_debugging:
        for library in TRACING_LIBRARIES:
            logging.getLogger(library).setLevel(logging.CRITICAL)


def _safe(stream: TextIO | None, descriptor: int) -> Output:
    if stream is None:
        stream = open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    assert isinstance(stream, io.TextIOWrapper)
    encoding, is_by_line, is_unbuffered = stream.encoding, stream.line_buffering, stream.write_through
    return Output(stream.detach(), encoding, PLAINLY, line_buffering=is_by_line, write_through=is_unbuffered)


def _write_plainly(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that a stream's encoding does not have, instead of raising."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character) or _as_ascii(character) for character in characters), error.end


def _as_ascii(character: str) -> str:
    return escaped(character).encode("ascii", "backslashreplace").decode()


def _log_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    logging.getLogger("py.warnings").warning("%s: %s", category.__name__, message)


codecs.register_error(PLAINLY, _write_plainly)
