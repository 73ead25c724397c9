"""Local disks and remote storage such as gs://: telling them apart, and writing to remote storage through a local folder.

Some libraries (TensorBoard's writer, Matplotlib, the profiler) can write to a local disk only. For a remote destination they
write to a temporary folder, whose files are then uploaded.
"""

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath
from etils.epath import backend

from pyrseg_jax.errors import UserError, reason_of

PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}  # kinds of remote storage, and what reads them


def is_remote(path: epath.PathLike) -> bool:
    """Return whether a path is in remote storage (it has a scheme like gs://) rather than on a local disk."""
    return "://" in os.fspath(path)


def storage_path(text: str) -> epath.Path:
    """Return the path that a text names, on a local disk or in remote storage that can be read here.

    Raises:
      UserError: for an address of another kind, such as https://, or if the package that reads it is not installed.
    """
    scheme = text.partition("://")[0]
    if is_remote(text) and scheme not in PACKAGES:
        raise UserError(
            f"{text}: addresses of this kind are not read: download what it names and give its path, or name remote storage "
            f"({', '.join(f'{name}://' for name in PACKAGES)})"
        )
    if is_remote(text) and importlib.util.find_spec("tensorflow") is None:  # which reads remote storage by itself
        try:
            backend.fsspec_backend.fs(text)
        except ImportError as error:
            raise UserError(f"{text} needs another package: run `pip install {PACKAGES[scheme]}`") from error
        except Exception as error:
            raise UserError(
                f"{text} cannot be opened ({reason_of(error)}): check the address and your credentials"
            ) from error
    return epath.Path(text).expanduser()


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
