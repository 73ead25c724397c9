"""The record of what `predict` has done in an output folder: one line of JSON per image.

A line is added before the files of its image appear, and says what they will hold. So an image is finished if there is a line with
the present settings and every file is as it says. Whatever else a killed command leaves belongs to `predict` and may be replaced.
Each process writes a file of its own, and reads those of all others when it starts.
"""

import collections
import contextlib
import datetime
import errno
import fcntl
import hashlib
import logging
import os
import re
import stat
import threading
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from etils import epath
from pydantic import Field

from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.storage.atomic import Buffer
from pyrseg_jax.storage.documents import Document, parse_json
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.storage.regular_file import obstacle, open_regular_file, read_regular_file

log = logging.getLogger(__name__)

NAME = "manifest.jsonl"
MAX_BYTES = 2**31  # of a manifest: some million images
MAX_FILE_BYTES = 2**40  # of a result: a long video
REMOTE_EVERY_S = 20  # remote storage cannot append: the whole file is written again
_NAMES = re.compile(r"manifest(-\d{5}-of-\d{5})?\.jsonl")
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Written(Document):
    """The content of a file: its length, and its SHA-256."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: _Sha256

    @classmethod
    def of(cls, content: Buffer) -> "Written":
        """Describe a content."""
        return cls(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> "Written":
        """Describe the content of a local file of any size; raises OSError or UserError if it cannot be read."""
        with open_regular_file(path, MAX_FILE_BYTES) as file:
            digest = hashlib.file_digest(file, "sha256")
            return cls(bytes=file.tell(), sha256=digest.hexdigest())


class Settings(Document):
    """What decides the prediction for an image.

    model: where the model was read from.
    step: the step of its checkpoint; None for an exported model.
    weights: a digest of its parameters.
    protocol: how the network sees an image.
    threshold: τ of the fuser.
    temperatures: of each level, if the model is calibrated.
    """

    model: str
    step: int | None = None
    weights: str
    protocol: dict[str, Any]
    threshold: float
    temperatures: tuple[float, ...] | None = None

    def decisive(self) -> tuple:
        """Return the values by which two predictions may differ. The same run may be at another place."""
        return self.weights, self.protocol, self.threshold, self.temperatures


class Line(Settings):
    """One image, and what was written for it.

    image: its path below the input.
    bytes, modified, sha256: its size, the time of its last change in nanoseconds since 1970 (0 if unknown), and its SHA-256.
    height, width: in pixels.
    outputs: the files, by their paths below the output folder.
    seconds: from reading the image to the end of drawing; several images are in work at a time.
    time: when the files were complete.
    """

    image: str
    bytes: Annotated[int, Field(ge=0)]
    modified: Annotated[int, Field(ge=0)]
    sha256: _Sha256
    height: int
    width: int
    outputs: dict[str, Written]
    seconds: float
    time: str


class Source(NamedTuple):
    """The file of an image: its size, the time of its last change, and its SHA-256 (None if it was not read yet)."""

    bytes: int
    modified: int
    sha256: str | None = None


def name_of_part(index: int, count: int) -> str:
    """Return the name of the manifest of one of several processes."""
    return NAME if count == 1 else f"manifest-{index:05d}-of-{count:05d}.jsonl"


def now() -> str:
    """Return the present time, as a line holds it."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


class Manifest:
    """The lines of all processes that wrote to an output folder.

    Args:
      folder: the output folder, which need not exist.
      index, count: which of several processes this is.

    Attributes:
      path: the file of this process.
      is_found: whether an earlier command wrote something here.
      foreign: files with the name of a manifest that are not one.
    """

    def __init__(self, folder: Path | epath.Path, index: int = 0, count: int = 1):
        self.folder, self.path = folder, folder / name_of_part(index, count)
        self._lines: dict[str, Line] = {}
        self._written: dict[str, set[Written]] = collections.defaultdict(set)
        self.foreign: list[Path | epath.Path] = []
        self._own = bytearray()
        self._saved_at, self._mutex, self._descriptor = time.monotonic(), threading.Lock(), None
        for path in self._files():
            self._read(path)
        self.is_found = bool(self._lines)

    def line_of(self, key: str) -> Line | None:
        """Return the newest line of an image."""
        return self._lines.get(key)

    def is_own(self, name: str, found: Written | int) -> bool:
        """Return whether `predict` wrote a file of this path below the output with this content, or only of this length."""
        if isinstance(found, int):
            return any(written.bytes == found for written in self._written.get(name, ()))
        return found in self._written.get(name, ())

    def is_foreign(self, name: str) -> bool:
        """Return whether there is a local file at this path that `predict` did not write, or that was changed since."""
        path = Path(self.folder) / name
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return False
        # The size spares most foreign files from being read.
        if not stat.S_ISREG(found.st_mode) or not self.is_own(name, found.st_size):
            return True
        return not self.is_own(name, Written.of_file(path))

    def start(self) -> None:
        """Open the file of this process for lines; raises UserError if another process writes to it.

        Raises:
          OSError: if the folder cannot be written.
        """
        if is_remote(self.path):
            return
        if self.path in self.foreign:
            Path(self.path).unlink()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another `predict` is writing to {self.path}: wait until it ends") from error
        except OSError:  # some network file systems do not support locks
            pass
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":  # the last line was torn
            self._append(b"\n")

    def add(self, line: Line) -> None:
        """Add a line, before its files are written; raises OSError if the disk is full."""
        text = (line.model_dump_json() + "\n").encode()
        with self._mutex:
            self._append(text)
            self._remember(line)

    def close(self) -> None:
        """Write what is not written yet, and release the file."""
        with self._mutex:
            if is_remote(self.path):
                self._save()
            elif self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _append(self, text: bytes) -> None:
        if is_remote(self.path):
            self._own += text
            if time.monotonic() - self._saved_at > REMOTE_EVERY_S:
                self._save()
            return
        assert self._descriptor is not None, "start() comes first"
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        if os.write(self._descriptor, text) != len(text):
            os.ftruncate(self._descriptor, size)  # a torn line would also spoil the next one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _save(self) -> None:
        if self._own:
            self.path.write_bytes(bytes(self._own))
        self._saved_at = time.monotonic()

    def _files(self) -> list[Path | epath.Path]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if is_remote(self.folder):
                names = [entry.name for entry in self.folder.iterdir()] if self.folder.exists() else []
            else:
                names = os.listdir(self.folder)
            own = self.path.name
            ordered = sorted(filter(_NAMES.fullmatch, names), key=lambda name: (name == own, name))
            return [self.folder / name for name in ordered]
        return []

    def _read(self, path: Path | epath.Path) -> None:
        if is_remote(path):
            content = path.read_bytes()
            if path == self.path:
                self._own += content if content.endswith(b"\n") else content + b"\n"
        elif obstacle(Path(path)):
            self.foreign.append(path)
            return
        else:
            content = read_regular_file(Path(path), MAX_BYTES)
        num_damaged = 0
        for number, text in enumerate(content.splitlines()):
            try:
                self._remember(parse_json(text, Line, path))
            except UserError:
                if number == 0:  # a full disk or a kill may tear other lines
                    self.foreign.append(path)
                    return
                num_damaged += bool(text.strip())
        if num_damaged:
            log.warning("%s: %d damaged line(s) are ignored; their images are done again", path, num_damaged)

    def _remember(self, line: Line) -> None:
        self._lines[line.image] = line
        for name, written in line.outputs.items():
            self._written[name].add(written)


def describe_change(before: Settings, after: Settings) -> str:
    """Say in which settings two predictions differ."""
    old, new = (
        {"threshold": one.threshold, "weights": one.weights, "temperatures": one.temperatures} | one.protocol
        for one in (before, after)
    )
    changes = [f"{name} {old.get(name)} → {new.get(name)}" for name in new | old if old.get(name) != new.get(name)]
    return escaped(", ".join(changes)) or "none"
