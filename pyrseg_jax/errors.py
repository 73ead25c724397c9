"""The exception that the command line reports as one clear line instead of a traceback, and how texts get into such lines."""

import contextlib
import unicodedata
from collections.abc import Iterator

MAX_REASON = 160  # characters of another library's message that ours repeat
_JOINERS = "\u200c\u200d"  # invisible, but Persian, Hindi and emoji cannot be written without them


class UserError(Exception):
    """Report a problem that the user can fix: a file, a key or a value.

    The message says what was found and where, what was expected, and what to do. The exception takes exactly one argument, so
    that a data worker process can pickle it; the main process would hang on an exception that it cannot unpickle.
    """


def escaped(text: str) -> str:
    r"""Escape everything in a text that a terminal might obey or that could forge a line of a log.

    Names of files and classes come from strangers and may hold any character. Control characters, line breaks, directional
    overrides and bytes that are not UTF-8 become visible escapes like `\n`, `\x1b`, `\u202e` and `\xff`.
    """
    return text if text.isprintable() else "".join(map(_escaped_character, text))


def _escaped_character(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    if unicodedata.category(character) == "Zs":  # spaces of other widths, common in file names
        return character
    if 0xDC80 <= ord(character) <= 0xDCFF:  # how Python holds a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def reason_of(error: BaseException) -> str:
    """Describe an exception in one short line: its type, and the first line of its message. A UserError has its own words."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    name, line = type(error).__name__, first_line(error)
    text = name if line == name else f"{name}: {line}"
    return escaped(text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…")


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its type if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def naming_file(name: str, action: str, advice: str) -> Iterator[None]:
    """Turn every exception of another library into a UserError that names the file at fault.

    Use this around the work on one item, so that no bad file ends the work on the others. Our own UserErrors pass unchanged.

    Args:
      name: the file, as the message shows it.
      action: what cannot be done: "cannot be decoded".
      advice: what the user can do.

    Raises:
      UserError: `NAME ACTION (REASON): ADVICE`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{escaped(name)} {action} ({reason_of(error)}): {advice}") from error
