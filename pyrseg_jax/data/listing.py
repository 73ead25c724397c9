"""List a folder, and count and name what is passed over, so that no file of the user is left out in silence."""

import collections
import os
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from pyrseg_jax.data.images.image_formats import UNREADABLE_SUFFIXES
from pyrseg_jax.errors import escaped

MAX_NAMED = 3  # folders that a line names
MAX_KINDS = 6  # kinds of files that a line names
MAX_SUFFIX = 12  # characters; what is longer is a part of a name with a dot in it


class Entries(NamedTuple):
    """The names in a folder, sorted. Links count as what they lead to; a link that leads nowhere counts as a file."""

    files: tuple[str, ...]
    folders: tuple[str, ...]


def entries_of(folder: Path) -> Entries:
    """List a folder on a local disk; raises OSError if it cannot be read."""
    files, folders = [], []
    with os.scandir(folder) as found:
        for entry in found:
            (folders if _is_folder(entry) else files).append(entry.name)
    return Entries(tuple(sorted(files)), tuple(sorted(folders)))


def is_taken(name: str, suffixes: Collection[str]) -> bool:
    """Return whether a file has one of these suffixes, in letters of any case, and is not hidden.

    macOS may write a hidden `._NAME.jpg` next to each NAME.jpg; it is not an image.
    """
    return suffix_of(name) in suffixes and not name.startswith(".")


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, with its dot, or "" if there is none."""
    return PurePath(name).suffix.lower()


def passed_over(entries: Entries, suffixes: Collection[str]) -> str:
    """Describe what a folder holds beside files with these suffixes, or return "" if there is nothing else.

    Args:
      entries: the content of the folder.
      suffixes: suffixes of the files that are read, in lower case.

    Returns:
      Text like `2 folders (city, night), 3 .heic files (HEIC is not read: convert them to JPEG) and 1 hidden file`, safe for
      terminals and logs.
    """
    parts = [_name_folders(entries.folders)] if entries.folders else []
    others = [name for name in entries.files if not is_taken(name, suffixes)]
    kinds = collections.Counter(map(_kind_of, others)).most_common()
    parts += [_name_kind(kind, count) for kind, count in kinds[:MAX_KINDS]]
    if len(kinds) > MAX_KINDS:
        parts.append(_count(sum(count for _, count in kinds[MAX_KINDS:]), "other file"))
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def say_passed_over(place: str, text: str) -> str:
    """Return a line like `data/images/training: 1 folder (city) is passed over`, given what `passed_over` returned."""
    is_one = text.startswith("1 ") and ", " not in text and " and " not in text
    return f"{place}: {text} {'is' if is_one else 'are'} passed over"


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _kind_of(name: str) -> str:
    suffix = suffix_of(name)
    if name.startswith("."):
        return "hidden"
    return suffix if len(suffix) <= MAX_SUFFIX else ""


def _name_kind(kind: str, count: int) -> str:
    if kind == "hidden":
        return _count(count, "hidden file")
    if not kind:
        return _count(count, "file") + " without a known suffix"
    advice = "convert it to JPEG" if count == 1 else "convert them to JPEG"
    note = f" ({UNREADABLE_SUFFIXES[kind]} is not read: {advice})" if kind in UNREADABLE_SUFFIXES else ""
    return _count(count, f"{escaped(kind)} file") + note


def _name_folders(names: Sequence[str]) -> str:
    named = ", ".join(escaped(name) for name in names[:MAX_NAMED])
    return f"{_count(len(names), 'folder')} ({named}{', …' if len(names) > MAX_NAMED else ''})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
