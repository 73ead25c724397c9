"""File names: every name that a data set or a weight file brings becomes a safe name of a single file."""

import hashlib
import re
import unicodedata

ABOUT_MODEL = "model.json"  # the file that makes a folder a model folder
MAX_BYTES = 200  # file systems allow 255; the rest is for suffixes like `_overlay.jpg.partial`
# Path separators, control characters, directional marks and overrides, and bytes that are not UTF-8 (lone surrogates). A percent
# sign only where it could be read as an escape, so that different names stay different.
_UNSAFE = re.compile(
    r"[/\\\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|%(?=[0-9A-Fa-f]{2})"
)


def file_name_of(name: str) -> str:
    """Return a file name for any name from data. Different names give different file names.

    Usual names stay as they are. Characters that lead out of a folder, break lines or cannot be stored become %XX as in URLs, so
    `../x` becomes `..%2Fx`. A name longer than `MAX_BYTES` bytes is cut, and ends in `~` and a part of its SHA-256.
    """
    safe = _UNSAFE.sub(lambda found: _percent(found[0]), name)
    if not safe.strip("."):  # "", "." and ".." name folders
        safe = "%2E" * len(safe) or "%"
    data = safe.encode()
    if len(data) <= MAX_BYTES:
        return safe
    digest = hashlib.sha256(data).hexdigest()[:16]
    return data[: MAX_BYTES - 17].decode(errors="ignore") + "~" + digest


def comparable(name: str) -> str:
    """Return the composed form (NFC) of a name: macOS stores `é` as two characters, which look the same everywhere."""
    return unicodedata.normalize("NFC", name)


def _percent(character: str) -> str:
    is_byte = "\udc80" <= character <= "\udcff"  # how Python holds a byte of a file name that is not UTF-8
    return "".join(
        f"%{byte:02X}" for byte in character.encode(errors="surrogateescape" if is_byte else "surrogatepass")
    )
