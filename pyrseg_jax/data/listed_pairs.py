"""Pair images and label maps whose splits are lists of names in text files."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.listing import Entries, passed_over, say_passed_over
from pyrseg_jax.data.near_names import find_similar, say_similar
from pyrseg_jax.data.pairs import ArchiveSource, PairFiles
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.names import comparable


class Kind(NamedTuple):
    """Where the images or the label maps of a data set are: `folder/NAME` and a suffix."""

    folder: str
    suffix: str


def list_splits(
    archive: Archive,
    lists: Mapping[str, str],
    kinds: Sequence[Kind],
    read_label: Callable[[bytes, str], bytes] | None = None,
) -> dict[str, ArchiveSource]:
    """List the pairs of each split, in the order of the published lists.

    Args:
      archive: the archive that holds all files.
      lists: name of a split → the text file with one name per line, without a suffix.
      kinds: where the images are, and where the label maps are.
      read_label: see `ArchiveSource`.

    Raises:
      UserError: naming the list and the line, if a file is missing or a name is listed twice.
    """
    seen: dict[str, str] = {}
    files = {kind: _files_by_name(archive, kind) for kind in kinds}
    splits = {split: _read_list(archive, path, files, seen) for split, path in lists.items()}
    remarks = _remarks(archive, splits, kinds)
    return {split: ArchiveSource(archive, pairs, read_label, remarks) for split, pairs in splits.items()}


def _files_by_name(archive: Archive, kind: Kind) -> dict[str, str]:
    """Return name as in the lists (composed) → file name in the archive."""
    files = archive.entries_in(kind.folder).files if archive.has_folder(kind.folder) else ()
    return {comparable(name.removesuffix(kind.suffix)): name for name in files if name.endswith(kind.suffix)}


def _remarks(archive: Archive, splits: dict[str, list[PairFiles]], kinds: Sequence[Kind]) -> list[str]:
    """Describe what lies in the folders and is in no list, because the lists decide."""
    listed = {file for pairs in splits.values() for pair in pairs for file in (pair.image, pair.label)}
    lines = []
    for folder, _ in kinds:
        entries = archive.entries_in(folder)
        others = Entries(tuple(name for name in entries.files if f"{folder}/{name}" not in listed), entries.folders)
        if text := passed_over(others, ()):
            lines.append(f"{say_passed_over(archive.place(folder), text)}: no list names them")
    return lines


def _read_list(
    archive: Archive, path: str, files: Mapping[Kind, dict[str, str]], seen: dict[str, str]
) -> list[PairFiles]:
    """Read one list of names. `seen` maps the names from the lists read before to the file and line that list them."""
    pairs = []
    # Bytes that are not UTF-8 are kept as in the names of files.
    text = archive.read(path).decode("utf-8-sig", "surrogateescape")
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        name, where = comparable(line.strip()), f"{archive.place(path)}, line {number}"
        if not name:
            continue
        if name in seen:
            raise UserError(
                f"{where}: {name} is already listed in {seen[name]}: list each image only once, in one split"
            )
        seen[name] = where
        for kind, names in files.items():
            if name not in names:
                raise _missing(archive, kind, name, where)
        image, label = (f"{kind.folder}/{names[name]}" for kind, names in files.items())
        pairs.append(PairFiles(name, image, label))
    if not pairs:
        raise UserError(f"{archive.place(path)} lists no images: expected one name per line, without .jpg")
    return pairs


def _missing(archive: Archive, kind: Kind, name: str, where: str) -> UserError:
    entries = archive.entries_in(kind.folder) if archive.has_folder(kind.folder) else Entries((), ())
    similar = find_similar(name, entries)
    state = f"is not there{say_similar(similar)}" if similar else "is missing"
    return UserError(
        f"{where} names {name}, but {archive.place(f'{kind.folder}/{name}{kind.suffix}')} {state}: add the file, or remove "
        "the line"
    )
