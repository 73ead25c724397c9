"""The folder that an import writes: it gets its name when it is complete, and never replaces files of other programs."""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pyrseg_jax.errors import UserError, first_line
from pyrseg_jax.storage.paths import is_remote

MARKER = "import.json"  # what an import writes about itself
LOCK = ".lock"
_PARTIAL = r"\.[0-9a-f]{8}\.importing"


def check_output(output: str, source: Path, is_replacing: bool) -> Path:
    """Return the folder to write.

    Raises:
      UserError: if it is in remote storage, is the source or one contains the other, or exists and may not be replaced.
    """
    if is_remote(output):
        raise UserError(f"--output={output} is in remote storage: name a folder on a local disk")
    folder = Path(output).expanduser()
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"--output={output} is not a folder: name another")
    real, real_source = Path(os.path.realpath(folder)), Path(os.path.realpath(source))
    if real == real_source or real in real_source.parents:
        raise UserError(f"--output={output} holds the source {source}, which is never changed: name another folder")
    if real_source in real.parents:
        raise UserError(
            f"--output={output} lies in the source {source}, which is never changed: name a folder beside it"
        )
    if folder.is_dir() and any(folder.iterdir()):
        if not is_replacing:
            raise UserError(
                f"--output={output} exists and is not empty: name another folder, or give --overwrite to replace what an earlier "
                "import wrote there"
            )
        if not (folder / MARKER).is_file():
            raise UserError(
                f"--output={output} was not written by an import (it has no {MARKER}), so it is not replaced: name another folder"
            )
    return folder


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target. At the end it takes the target's name; after an error it is removed.

    First, remove what killed imports of the same target left behind.

    Raises:
      UserError: if the disk does not take the files.
    """
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.importing")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        partial.mkdir()
        with _locked(partial):
            try:
                yield partial
                _take_place(partial, target)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror or error}): make room, or name another folder with --output"
        ) from error


def _take_place(partial: Path, target: Path) -> None:
    (partial / LOCK).unlink()
    old = None
    if target.exists():
        old = partial.with_name(f"{target.name}.{secrets.token_hex(4)}.importing")
        target.rename(old)
    partial.rename(target)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(target: Path) -> None:
    pattern = re.compile(re.escape(target.name) + _PARTIAL)
    for folder in target.parent.iterdir():
        if pattern.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink() and not _is_locked(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_locked(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def unpack_zip(path: Path, folder: Path) -> None:
    """Unpack an export that is a zip; no file can leave the folder.

    Raises:
      UserError: naming the zip, if it is damaged, needs a password, or is larger than the free space.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            free = shutil.disk_usage(folder.parent).free
            if size > free:
                raise UserError(
                    f"{path} holds {size:,} bytes, but the disk has {free:,} left: make room, or unpack it elsewhere"
                )
            for entry in archive.infolist():
                if "/" not in entry.filename:  # some programs for Windows separate folders by backslashes
                    entry.filename = entry.filename.replace("\\", "/")
                archive.extract(entry, folder)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise UserError(
            f"{path} cannot be unpacked ({first_line(error)}): export it again, or unpack it yourself"
        ) from error
