"""Explain why a file does not fit although a file of a similar name is there: messages agree with what `ls` shows."""

import unicodedata
from pathlib import PurePath

from pyrseg_jax.data.listing import Entries
from pyrseg_jax.storage.names import comparable

MAX_NAMED = 3


def find_similar(stem: str, entries: Entries) -> list[str]:
    """Describe the files and folders whose names differ from a stem only in what is easily overlooked.

    Args:
      stem: the expected name, without its suffix.
      entries: what the folder holds.

    Returns:
      Texts like `'A.PNG' (other letter case)`.
    """
    wanted = _loosened(stem)
    # A name with a dot in it may be a stem that lacks its suffix.
    files = [f for f in entries.files if wanted in (_loosened(PurePath(f.lstrip(".")).stem), _loosened(f))]
    files += [f for f in entries.files if f not in files and _adds_to(_loosened(f.lstrip(".")), wanted)]
    folders = [f for f in entries.folders if wanted in (_loosened(PurePath(f).stem), _loosened(f))]
    return [f"'{f}' ({_difference(f, stem)})" for f in files] + [f"'{f}' (a folder)" for f in folders]


def say_similar(similar: list[str]) -> str:
    """Continue a sentence about a file that was not found: name the files of similar names, if there are any."""
    more = ", …" if len(similar) > MAX_NAMED else ""
    return f", and found {', '.join(similar[:MAX_NAMED])}{more}" if similar else ""


def _difference(name: str, stem: str) -> str:
    if name.startswith("."):
        return "a hidden file"
    found, wanted = comparable(PurePath(name).stem), comparable(stem)
    if found == wanted or comparable(name) == wanted:
        return "another suffix" if PurePath(name).suffix else "no suffix"
    if found.lower() == wanted.lower():  # `casefold` would also equate letters that look alike
        return "other letter case"
    if "".join(found.split()) == "".join(wanted.split()):
        return "other spaces"
    if _loosened(found) == _loosened(wanted):
        return "other characters that look alike"
    return "a longer name"


def _adds_to(name: str, wanted: str) -> bool:
    """Tell whether a name is the wanted one and an addition, as in `x_mask.png`, `x-labels.png` and `x.jpg.png`."""
    return name.startswith(wanted) and name[len(wanted) : len(wanted) + 1] in ("_", "-", ".")


def _loosened(name: str) -> str:
    """Reduce a name to what a reader sees: without case, spaces and invisible characters."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in folded if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf"))
