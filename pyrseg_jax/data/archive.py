"""Read the files of a data set from a folder, or from a zip without unpacking it."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pyrseg_jax.errors import UserError

# Far above any photograph or label map of a known data set. A file that unpacks to more is a zip bomb or a mistake.
MAX_FILE_BYTES = 512 * 2**20
FETCH_AGAIN = "fetch the file again"


class FolderArchive:
    """Files below a folder. Names are relative, with `/`."""

    def __init__(self, base: Path):
        self._base = base

    def __repr__(self) -> str:
        return f"FolderArchive({self._base})"

    def place(self, name: str = "") -> str:
        """Describe where a file is, for messages."""
        return str(self._base / name)

    def has_folder(self, name: str) -> bool:
        """Return whether there is a folder of this name."""
        return (self._base / name).is_dir()

    def files_in(self, folder: str) -> list[str]:
        """List the names of the files in a folder, sorted. Files in folders below it are not listed."""
        return sorted(path.name for path in (self._base / folder).iterdir())

    def read(self, name: str) -> bytes:
        """Read a file; raises UserError naming the file if that fails."""
        path = self._base / name
        try:
            size = path.stat().st_size
            if size > MAX_FILE_BYTES:
                raise UserError(_too_large(str(path), size))
            return path.read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing: add it, or take its name out of the data set's lists") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): check the disk and the permissions") from error

    def stamp(self, name: str) -> str:
        """Describe the state of a file by its size and the time of its last change."""
        try:
            stat = (self._base / name).stat()
        except FileNotFoundError:
            return f"{name} missing"
        return f"{name} {stat.st_size} {stat.st_mtime_ns}"


class ZipArchive:
    """Files below a folder inside a zip. It can be pickled: each process opens the zip anew.

    Raises:
      UserError: if the file is not a zip, is cut off, or has an entry that leads out of its folder.
    """

    def __init__(self, path: Path, base: str = ""):
        self._path, self._base = path, base
        self._open()

    def _open(self) -> None:
        try:
            self._zip = zipfile.ZipFile(self._path)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise UserError(
                f"{self._path} cannot be read as a zip ({error}): it may be cut off; {FETCH_AGAIN}"
            ) from error
        self._folders: dict[str, list[str]] = {}
        for info in self._zip.infolist():
            name = PurePosixPath(info.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts:
                raise UserError(
                    f"{self._path}: the entry {info.filename!r} leads out of its folder, which no zip of a data set needs; "
                    f"{FETCH_AGAIN} from a source that you trust"
                )
            if not info.is_dir():
                self._folders.setdefault(str(name.parent), []).append(name.name)

    def __getstate__(self) -> tuple:
        return self._path, self._base

    def __setstate__(self, state: tuple) -> None:
        self._path, self._base = state
        self._open()

    def __repr__(self) -> str:
        return f"ZipArchive({self._path})"

    def below(self, base: str) -> "ZipArchive":
        """Return the same zip, seen from a folder inside it."""
        return ZipArchive(self._path, base)

    def folders(self) -> list[str]:
        """List the folders that hold files."""
        return sorted(self._folders)

    def place(self, name: str = "") -> str:
        """Describe where a file is, for messages."""
        inside = self._full(name)
        return f"{self._path}:{inside}" if name else str(self._path)

    def has_folder(self, name: str) -> bool:
        """Return whether there is a folder of this name that contains files."""
        return self._full(name) in self._folders

    def files_in(self, folder: str) -> list[str]:
        """List the names of the files in a folder, sorted. Files in folders below it are not listed."""
        return sorted(self._folders.get(self._full(folder), []))

    def read(self, name: str) -> bytes:
        """Read a file; raises UserError naming the file if that fails."""
        try:
            info = self._zip.getinfo(self._full(name))
        except KeyError as error:
            raise UserError(f"{self.place(name)} is missing: {FETCH_AGAIN}, it seems incomplete") from error
        if info.file_size > MAX_FILE_BYTES:
            raise UserError(_too_large(self.place(name), info.file_size))
        try:
            with self._zip.open(info) as file:
                data = file.read(MAX_FILE_BYTES + 1)
        # Encrypted: RuntimeError; an unknown compression: NotImplementedError.
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise UserError(
                f"{self.place(name)} cannot be unpacked ({error}): the zip is damaged; {FETCH_AGAIN}"
            ) from error
        if len(data) > MAX_FILE_BYTES:  # the size in its header was wrong
            raise UserError(_too_large(self.place(name), len(data)))
        return data

    def stamp(self, name: str) -> str:
        """Describe the state of a file by its size and checksum, which the zip records."""
        try:
            info = self._zip.getinfo(self._full(name))
        except KeyError:
            return f"{name} missing"
        return f"{name} {info.file_size} {info.CRC:08x}"

    def _full(self, name: str) -> str:
        return str(PurePosixPath(self._base) / name)


Archive = FolderArchive | ZipArchive


def open_archive(root: str, markers: Sequence[str], zip_names: Sequence[str], what: str) -> Archive:
    """Find a data set's files: the unpacked folder, the zip, or a folder that holds one of them.

    Args:
      root: file or folder, as the user gives it.
      markers: folders that the data set has, like `images/training`; one of them is enough to recognize it.
      zip_names: names that the published file may have.
      what: name of the data set, for messages.

    Raises:
      UserError: saying what was expected, if nothing is found.
    """
    path = Path(root).expanduser()
    expected = (
        f"the unpacked folder of {what} (with {' or '.join(markers)} in it), or the file {' or '.join(zip_names)}"
    )
    if path.is_file():
        return _inside_zip(path, markers, expected)
    if not path.is_dir():
        raise UserError(f"root={root}: there is no such file or folder ({path.absolute()}); name {expected}")
    for base in (path, *sorted(path.glob("*/")), *sorted(path.glob("*/*/"))):
        if any((base / marker).is_dir() for marker in markers):
            return FolderArchive(base)
    for name in zip_names:
        if (path / name).is_file():
            return _inside_zip(path / name, markers, expected)
    raise UserError(f"root={root} holds no such files: name {expected}")


def _inside_zip(path: Path, markers: Sequence[str], expected: str) -> ZipArchive:
    archive = ZipArchive(path)
    for folder in archive.folders():
        for marker in markers:
            if folder == marker or folder.endswith("/" + marker):
                base = folder.removesuffix(marker).rstrip("/")
                return archive.below(base) if base else archive
    raise UserError(f"{path} is a different zip file: expected {expected}")


def _too_large(place: str, size: int) -> str:
    return (
        f"{place} unpacks to {size / 2**20:.0f} MiB, above the limit of {MAX_FILE_BYTES // 2**20} MiB for one file: it is "
        "not an image or label map; remove it from the data set"
    )
