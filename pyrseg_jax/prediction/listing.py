"""Find the images below a folder, on a disk or in remote storage, and name the files that each will get."""

import collections
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from etils import epath

from pyrseg_jax.data.images.image_formats import IMAGE_SUFFIXES, LABEL_SUFFIXES
from pyrseg_jax.data.listing import Entries, entries_of, is_taken, passed_over, suffix_of
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.storage.names import comparable, file_name_of
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.storage.regular_file import kind_of

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


class Item(NamedTuple):
    """An image or a video to segment.

    path: where it is.
    key: its path below the input, with slashes; for a single file its name. Its parts are safe names, see `storage.names`.
    name: the path of its outputs below the output folder, without suffix.
    truth: its label map if it lies in a data set of the layout `folder`, or None.
    frames: the images of a folder that are the frames of a video; then `path` is that of the folder.
    """

    path: Path | epath.Path
    key: str
    name: str
    truth: Path | None = None
    frames: tuple["Item", ...] = ()

    @property
    def is_video(self) -> bool:
        """Return whether it is a video, in one file or in many."""
        return bool(self.frames) or suffix_of(self.key) in VIDEO_SUFFIXES


class Found(NamedTuple):
    """What an input holds.

    items: the images and videos, sorted by key.
    notes: what else it holds, each as the rest of a line of the log that follows its path.
    """

    items: list[Item]
    notes: list[str]


def find_items(source: Path | epath.Path, output: Path | epath.Path | None = None) -> Found:
    """Find one file, or all images and videos in and below a folder.

    Links to folders are followed, but not to a folder above them. Hidden files and folders, and the output folder, are left out.

    Args:
      source: a file or a folder.
      output: the folder of the results, which may lie below the input.

    Raises:
      UserError: if there is nothing, or it cannot be read.
    """
    if is_remote(source):
        return _find_remote(epath.Path(source), output)
    source = Path(source)
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISREG(mode):
            return Found([_item(source, source.name)], [])
        if not stat.S_ISDIR(mode):
            raise UserError(f"--input={source} is {kind_of(mode)}: expected an image or a folder of images")
        walk = _Walk(source, None if output is None or is_remote(output) else Path(output))
        walk.enter(source, (), ())
    except FileNotFoundError as error:
        raise UserError(f"--input={source}: there is no such file or folder ({source.absolute()})") from error
    except OSError as error:
        raise UserError(f"--input={source} cannot be read ({error.strerror or error}): name another") from error
    return _found(source, walk.files, walk.others, walk.hidden, walk.notes)


class _Walk:
    """Walk through a folder and all below it."""

    def __init__(self, source: Path, output: Path | None):
        self._source, self._output = source, None if output is None else _identity(output)
        self.files: list[tuple[str, ...]] = []
        self.others: list[str] = []
        self.hidden: list[str] = []
        self.notes: list[str] = []

    def enter(self, folder: Path, parts: tuple[str, ...], above: tuple[tuple[int, int] | None, ...]) -> None:
        own = _identity(folder)
        if own in above:
            self.notes.append(f"{'/'.join(parts)} leads back to a folder above it and is passed over")
            return
        if parts and own is not None and own == self._output:
            self.notes.append(f"{'/'.join(parts)} is the output and is passed over")
            return
        entries = entries_of(folder)
        for name in entries.files:
            if is_taken(name, SUFFIXES):
                self.files.append((*parts, name))
            else:
                self.others.append(name)
        for name in entries.folders:
            if name.startswith("."):
                self.hidden.append(name)
            else:
                self.enter(folder / name, (*parts, name), (*above, own))


def _find_remote(source: epath.Path, output: Path | epath.Path | None) -> Found:
    if is_taken(source.name, SUFFIXES) and not source.is_dir():
        if not source.exists():
            raise UserError(f"--input={source}: there is no such file")
        return Found([_item(source, source.name)], [])
    files: list[tuple[str, ...]] = []
    others, hidden = [], []
    waiting: list[tuple[epath.Path, tuple[str, ...]]] = [(source, ())]
    while waiting:
        folder, parts = waiting.pop()
        if parts and output is not None and os.fspath(folder).rstrip("/") == os.fspath(output).rstrip("/"):
            continue
        for entry in folder.iterdir():
            if entry.is_dir():
                if entry.name.startswith("."):
                    hidden.append(entry.name)
                else:
                    waiting.append((entry, (*parts, entry.name)))
            elif is_taken(entry.name, SUFFIXES):
                files.append((*parts, entry.name))
            else:
                others.append(entry.name)
    return _found(source, files, others, hidden, [])


def _found(
    source: Path | epath.Path,
    files: Sequence[tuple[str, ...]],
    others: Sequence[str],
    hidden: Sequence[str],
    notes: Sequence[str],
) -> Found:
    held = passed_over(Entries(tuple(sorted(others)), tuple(sorted(hidden))), SUFFIXES)
    if not files:
        found = f"it holds {held}" if held else "it is empty"
        raise UserError(f"--input={source} holds no images ({found}): expected {', '.join(sorted(SUFFIXES))}")
    items = [_item(source.joinpath(*parts), "/".join(parts)) for parts in sorted(files)]
    return Found(items, [held] * bool(held) + [escaped(note) for note in notes])


def _item(path: Path | epath.Path, key: str) -> Item:
    *folders, last = key.split("/")
    named = [file_name_of(part) for part in folders]
    return Item(
        path, "/".join([*named, file_name_of(last)]), "/".join([*named, file_name_of(PurePosixPath(last).stem)])
    )


def with_truth(items: Sequence[Item]) -> list[Item]:
    """Return the items with their label maps, where an image lies in a data set of the layout `folder`."""
    local = {item.path.parent for item in items if not is_remote(item.path)}
    labels = {folder: _labels_beside(Path(folder)) for folder in local}

    def truth_of(path: Path | epath.Path) -> Path | None:
        beside = labels.get(path.parent, {})
        return beside.get(path.stem) or beside.get(comparable(path.stem))

    return [item._replace(truth=truth_of(item.path)) for item in items]


def share_of(items: Sequence[Item], index: int, count: int) -> list[Item]:
    """Return the items of one of several processes.

    A digest of an item's key says which process does it. So the processes need not tell each other anything, and a file that
    appears while they start changes nothing for the others.
    """
    if count == 1:
        return list(items)
    return [item for item in items if _digest(item.key) % count == index]


def as_videos(items: Sequence[Item], source: Path | epath.Path) -> list[Item]:
    """Return one item per folder of images, whose frames they are in the order of their names, and the videos as they are.

    The files of a folder are named after it; those of the input itself after the input.
    """
    folders: dict[str, list[Item]] = collections.defaultdict(list)
    for item in items:
        if not item.is_video:
            folders[item.key.rpartition("/")[0]].append(item)
    found = [item for item in items if item.is_video]
    for key, frames in folders.items():
        name = key or file_name_of(source.name or "frames")
        found.append(Item(frames[0].path.parent, f"{name}/", name, frames=tuple(frames)))
    return sorted(found, key=lambda item: item.key)


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:8])


def _labels_beside(folder: Path) -> dict[str, Path]:
    """Return the label maps of the images of a folder, by their names as they are and as `comparable` forms them."""
    for place in (folder.absolute(), folder.resolve()):
        labels = place.parents[1] / "annotations" / place.name if place.parent.name == "images" else None
        if labels is not None and labels.is_dir():
            found = [labels / name for name in entries_of(labels).files if is_taken(name, LABEL_SUFFIXES)]
            return {comparable(path.stem): path for path in found} | {path.stem: path for path in found}
    return {}


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino
