"""The files of a source: listed once, found by name, and read. A file that cannot be read is one clear error."""

import json
import os
import urllib.parse
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pyrseg_jax.data.images.image_formats import IMAGE_SUFFIXES
from pyrseg_jax.data.listing import suffix_of
from pyrseg_jax.errors import UserError, first_line
from pyrseg_jax.storage.names import comparable
from pyrseg_jax.storage.regular_file import read_regular_file, unreadable

MAX_TEXT_BYTES = 2**32  # the largest published COCO file has 0.5 GB
MAX_CACHED = 4  # parsed documents; the recognition and the reading of a format ask for the same ones
_PASSED_OVER = ("__MACOSX",)


class SourceTree:
    """All files below a folder, or a single file with those beside it.

    Args:
      root: the folder, or a file in it: then this file alone counts as annotations, and images are looked up in its folder or, if
        that folder is named `annotations` or holds no image, in the folder above.
      shown: the path that messages show instead of the root, for a zip that was unpacked elsewhere.

    Attributes:
      root: the folder.
      problems: why files that may hold annotations could not be read, for the message that no format is recognized.
      files: paths of all files relative to it, with `/`, sorted. Hidden files and folders are left out.
    """

    def __init__(self, root: Path, shown: Path | None = None):
        self.root, self.focus = root, None
        if not root.is_dir():
            self.root = _folder_of_images(root)
            self.focus = root.relative_to(self.root).as_posix()
        self._shown = shown or self.root
        self.problems: list[str] = []
        self.files = tuple(sorted(_walk(self.root)))
        self._known = frozenset(self.files)
        self._by_name: dict[str, list[str]] | None = None
        self._by_stem: dict[str, list[str]] | None = None
        self._documents: dict[str, Any] = {}

    def place(self, name: str) -> str:
        """Return the path of a file, for messages."""
        return str(self._shown / name)

    def has(self, name: str) -> bool:
        """Tell whether there is a file of this path, relative to the root."""
        return name in self._known

    def annotation_files(self, *suffixes: str) -> list[str]:
        """Return the files with one of these suffixes that may hold annotations."""
        names = self.files if self.focus is None else (self.focus,)
        return [name for name in names if suffix_of(name) in suffixes]

    def files_in(self, folder: str) -> list[str]:
        """Return the paths of the files below a folder, given relative to the root."""
        return (
            [name for name in self.files if name.startswith(f"{folder}/")]
            if folder not in ("", ".")
            else list(self.files)
        )

    def folders(self) -> set[str]:
        """Return the paths of all folders that hold files, directly or in deeper folders."""
        return {str(parent) for name in self.files for parent in PurePosixPath(name).parents if str(parent) != "."}

    def folders_named(self, *names: str) -> list[str]:
        """Return the folders whose last part is one of these names in any letter case, sorted by depth."""
        wanted = {name.lower() for name in names}
        found = (folder for folder in self.folders() if PurePosixPath(folder).name.lower() in wanted)
        return sorted(found, key=lambda folder: (folder.count("/"), folder))

    def read(self, name: str) -> bytes:
        """Read a file; raises UserError naming it if that fails."""
        path = self.root / name
        try:
            return read_regular_file(path, MAX_TEXT_BYTES)
        except (OSError, MemoryError) as error:
            raise unreadable(path, error) from error

    def text(self, name: str) -> str:
        """Read a text file in UTF-8; raises UserError naming the file and the line if it is not."""
        data = self.read(name)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise UserError(
                f"{self.place(name)} is not UTF-8 text (line {line}): export it again, or save it as UTF-8"
            ) from error

    def peek(self, name: str) -> Any:
        """Read a JSON file to recognize its format; return None if it cannot be read, and remember why."""
        try:
            return self.json(name)
        except UserError as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return None

    def first_jsons(self, most: int = 12) -> list[str]:
        """Return the JSON files to recognize a format by: those in the fewest folders first, and evenly spread over many."""
        names = sorted(self.annotation_files(".json"), key=lambda name: (name.count("/"), name))
        return names if len(names) <= most else names[:: -(-len(names) // most)]

    def json(self, name: str) -> Any:
        """Read a JSON file; raises UserError naming the file and the line if it is not JSON."""
        if name not in self._documents:
            text = self.text(name)
            try:
                document = json.loads(text)
            except (ValueError, RecursionError) as error:
                state = "is empty" if not text.strip() else f"is not JSON ({first_line(error)})"
                raise UserError(f"{self.place(name)} {state}: it may be cut off; export it again") from error
            if len(self._documents) >= MAX_CACHED:
                self._documents.pop(next(iter(self._documents)))
            self._documents[name] = document
        return self._documents[name]

    def find_image(self, name: str, folders: Iterable[str] = ()) -> str | None:
        """Find the image that an annotation names.

        Args:
          name: a file name or a relative path, with `/` or `\\`, perhaps with escapes as in URLs (`%20`).
          folders: folders where it is expected, relative to the root, the most likely one first.

        Returns:
          The path relative to the root: in one of these folders, or else the only file of the source that ends in this path; None
          if there is none, or if several files do.
        """
        folders = list(folders)
        found = self._find_image(name, folders)
        return found if found is not None or "%" not in name else self._find_image(urllib.parse.unquote(name), folders)

    def _find_image(self, name: str, folders: Sequence[str]) -> str | None:
        wanted = comparable(name.replace("\\", "/")).lstrip("/")
        while wanted.startswith("./"):
            wanted = wanted[2:]
        ends = self._files_by_name().get(PurePosixPath(wanted).name, [])
        for folder in folders:
            exact = comparable(wanted if folder in ("", ".") else f"{folder}/{wanted}")
            if found := [path for path in ends if comparable(path) == exact]:
                return found[0]
        for length in range(wanted.count("/") + 1):  # the path may begin with folders of the machine that exported it
            tail = wanted.split("/", length)[-1]
            found = [path for path in ends if comparable(path) == tail or comparable(path).endswith(f"/{tail}")]
            if len(found) == 1:
                return found[0]
            if found:
                return None
        return None

    def images(self, folder: str = "") -> list[str]:
        """Return the paths of all files with the suffix of an image below a folder."""
        return [name for name in self.files_in(folder) if suffix_of(name) in IMAGE_SUFFIXES]

    def _files_by_name(self) -> dict[str, list[str]]:
        if self._by_name is None:
            self._by_name = {}
            for path in self.files:
                self._by_name.setdefault(comparable(PurePosixPath(path).name), []).append(path)
        return self._by_name

    def missing_image(self, name: str, place: str) -> UserError:
        """Return the error for an image that annotations name and that is not there."""
        known = self._files_by_name().get(comparable(PurePosixPath(name.replace("\\", "/")).name), [])
        if len(known) > 1:
            return UserError(
                f"{place} names the image {name!r}, and {len(known)} files have this name, for example {known[0]} and {known[1]}: "
                "keep the folders as they were exported"
            )
        stem = comparable(PurePosixPath(name.replace("\\", "/")).stem).casefold()
        if self._by_stem is None:
            self._by_stem = {}
            for path in self.images():
                if not any(part.startswith("Segmentation") for part in PurePosixPath(path).parts):  # masks of VOC
                    self._by_stem.setdefault(comparable(PurePosixPath(path).stem).casefold(), []).append(path)
        similar = self._by_stem.get(stem, [])
        near = similar[0] if len(similar) == 1 else None
        advice = "put the photographs beside the annotations"
        return UserError(
            f"{place} names the image {name!r}, which is not below {self._shown}: "
            + (advice if near is None else f"{near} is there; rename it if it is the one, or {advice}")
        )


def _folder_of_images(file: Path) -> Path:
    """Return the folder below which the images of a single file of annotations are."""
    folder = file.parent
    has_images = any(suffix_of(name) in IMAGE_SUFFIXES for name in _walk(folder))
    return folder.parent if folder.name.lower() in ("annotations", "labels") or not has_images else folder


def _walk(root: Path) -> Iterable[str]:
    top = os.path.realpath(root)
    seen = {top}
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _PASSED_OVER]
        folders[:] = [name for name in folders if not _is_repeated(os.path.join(folder, name), top, seen)]
        base = os.path.relpath(folder, root)
        prefix = "" if base == "." else base.replace(os.sep, "/") + "/"
        yield from (prefix + name for name in names if not name.startswith("."))


def _is_repeated(folder: str, top: str, seen: set[str]) -> bool:
    """Tell whether a link leads to what is walked anyway or was walked already, or to a folder that holds it."""
    if not os.path.islink(folder):
        return False
    real = os.path.realpath(folder)
    is_known = real.startswith(f"{top}{os.sep}") or any(
        f"{other}{os.sep}".startswith(f"{real}{os.sep}") for other in seen
    )
    seen.add(real)
    return is_known


def common_folder(names: Sequence[str]) -> str:
    """Return the deepest folder that holds all of these files, or ""."""
    return os.path.commonpath([str(PurePosixPath(name).parent) for name in names]).replace("\\", "/") if names else ""
