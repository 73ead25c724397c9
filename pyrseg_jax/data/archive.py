"""Find the files of a data set: in a folder, or in a zip or tar that is not unpacked."""

from collections.abc import Sequence
from pathlib import Path

from pyrseg_jax.data.folder_archive import FolderArchive
from pyrseg_jax.data.joined_archive import JoinedArchive
from pyrseg_jax.data.tar_archive import TarArchive, is_tar
from pyrseg_jax.data.zip_archive import ZipArchive
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.regular_file import kind_of

Archive = FolderArchive | ZipArchive | TarArchive | JoinedArchive


def open_archive(
    root: str, markers: Sequence[str], file_names: Sequence[str], what: str
) -> FolderArchive | ZipArchive | TarArchive:
    """Find a data set's files: the unpacked folder, the zip or tar, or a folder that holds one of them.

    Args:
      root: file or folder, as the user gives it.
      markers: folders that the data set has, like `images/training`; one of them is enough to recognize it.
      file_names: names that the published file may have.
      what: name of the data set, for messages.

    Raises:
      UserError: saying what was expected, if nothing is found.
    """
    path = Path(root).expanduser()
    expected = _describe(markers, file_names, what)
    if not path.is_file() and not path.is_dir():
        raise UserError(f"root={root}: {describe_absence(path)} ({path.absolute()}); name {expected}")
    archive = find_archive(root, markers, file_names, what)
    if archive is None:
        raise UserError(f"root={root} holds no such files: name {expected}")
    return archive


def find_archive(
    root: str, markers: Sequence[str], file_names: Sequence[str], what: str
) -> FolderArchive | ZipArchive | TarArchive | None:
    """Find a data set's files as `open_archive` does, or return None if a folder does not hold them.

    Raises:
      UserError: for a zip or tar that is damaged or holds something else.
    """
    path = Path(root).expanduser()
    if path.is_file():
        return _inside(path, markers, _describe(markers, file_names, what))
    for base in (path, *sorted(path.glob("*/")), *sorted(path.glob("*/*/"))):
        if any((base / marker).is_dir() for marker in markers):
            return FolderArchive(base)
    for name in file_names:
        if (path / name).is_file():
            return _inside(path / name, markers, _describe(markers, file_names, what))
    return None


def describe_absence(path: Path) -> str:
    """Say why a path is neither a file nor a folder, in words that agree with what `ls` shows."""
    try:
        return f"this is {kind_of(path.stat().st_mode)}"
    except FileNotFoundError:
        return "this link leads to nothing" if path.is_symlink() else "there is no such file or folder"
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"


def _describe(markers: Sequence[str], file_names: Sequence[str], what: str) -> str:
    return f"the unpacked folder of {what} (with {' or '.join(markers)} in it), or the file {' or '.join(file_names)}"


def _inside(path: Path, markers: Sequence[str], expected: str) -> ZipArchive | TarArchive:
    archive, kind = (TarArchive(path), "tar") if is_tar(path) else (ZipArchive(path), "zip")
    for folder in archive.folders():
        for marker in markers:
            if folder == marker or folder.endswith("/" + marker):
                base = folder.removesuffix(marker).rstrip("/")
                return archive.below(base) if base else archive
    raise UserError(f"{path} is a different {kind} file: expected {expected}")
