"""Folders of runs in a bucket (gs://…): what libraries can only write to a disk is written to one, then copied."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath


def is_bucket(path: epath.PathLike) -> bool:
    """Tell whether a path is in a bucket and not on a disk."""
    return "://" in os.fspath(path)


def copy_to(folder: Path, target: epath.Path) -> None:
    """Copy all files in and below a folder of this disk, over those of the same name."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        copy = target.joinpath(*file.relative_to(folder).parts)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())


@contextlib.contextmanager
def written_on_disk(target: epath.Path) -> Iterator[Path]:
    """Give a folder of this disk to write to: `target` itself, made if need be, or one whose files are copied there at the end."""
    if not is_bucket(target):
        target.mkdir(parents=True, exist_ok=True)
        yield Path(target)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        copy_to(Path(folder), target)
