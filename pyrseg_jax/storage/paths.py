"""Local disks and remote storage such as gs://: telling them apart, and writing to remote storage through a local folder.

Some libraries (TensorBoard's writer, Matplotlib, the profiler) can write to a local disk only. For a remote destination they
write to a temporary folder, whose files are then uploaded.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
    """Return whether a path is in remote storage (it has a scheme like gs://) rather than on a local disk."""
    return "://" in os.fspath(path)


def is_there(path: Path | epath.Path) -> bool:
    """Return whether anything has this name: a file, a folder, or a link, even one that leads nowhere."""
    return path.exists() if is_remote(path) else os.path.lexists(path)


def upload_folder(folder: Path, target: epath.Path) -> None:
    """Copy all files in and below a local folder to `target`, replacing files of the same name."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        copy = target.joinpath(*file.relative_to(folder).parts)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())


@contextlib.contextmanager
def local_folder(target: epath.Path) -> Iterator[Path]:
    """Provide a local folder whose files end up in `target`.

    If `target` is on a local disk, the folder is `target` itself, created if necessary. Otherwise it is a temporary folder,
    and its files are uploaded when the context ends without an error.
    """
    if not is_remote(target):
        target.mkdir(parents=True, exist_ok=True)
        yield Path(target)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        upload_folder(Path(folder), target)
