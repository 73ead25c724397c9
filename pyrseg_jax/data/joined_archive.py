"""Read a data set whose parts lie in different places as if they lay in one folder."""

from collections.abc import Mapping

from pyrseg_jax.data.folder_archive import FolderArchive
from pyrseg_jax.data.listing import Entries
from pyrseg_jax.data.tar_archive import TarArchive
from pyrseg_jax.data.zip_archive import ZipArchive

Part = FolderArchive | ZipArchive | TarArchive


class JoinedArchive:
    """Several archives. The first folder of a name chooses the archive: `labels/a.png` is the file `a.png` of the part `labels`.

    Args:
      parts: name of the folder → the archive.
    """

    def __init__(self, parts: Mapping[str, Part]):
        self._parts = dict(parts)

    def __repr__(self) -> str:
        return f"JoinedArchive({self._parts})"

    def has_part(self, part: str) -> bool:
        """Return whether there is a part of this name."""
        return part in self._parts

    def place(self, name: str = "") -> str:
        """Describe where a file is, or where all parts are, for messages."""
        if not name:
            first, *others = dict.fromkeys(part.place() for part in self._parts.values())
            return f"{first} (with {' and '.join(others)})" if others else first
        part, rest = self._find(name)
        return part.place(rest)

    def location(self) -> str:
        """Describe which archives these are, in a text that changes when one of them is moved."""
        return "; ".join(f"{name}: {part.location()}" for name, part in self._parts.items())

    def has_folder(self, name: str) -> bool:
        """Return whether there is a folder of this name."""
        part, rest = self._find(name)
        return part.has_folder(rest)

    def entries_in(self, folder: str) -> Entries:
        """List the names of the files and folders in a folder. What the folders contain is not listed."""
        part, rest = self._find(folder)
        return part.entries_in(rest)

    def read(self, name: str) -> bytes:
        """Read a file; raises UserError naming the file if that fails."""
        part, rest = self._find(name)
        return part.read(rest)

    def stamp(self, name: str) -> str:
        """Describe the state of a file so that no change of it goes unnoticed."""
        part, rest = self._find(name)
        return part.stamp(rest)

    def outward_stamp(self, name: str) -> str:
        """Describe what a list of the files shows of a file."""
        part, rest = self._find(name)
        return part.outward_stamp(rest)

    def _find(self, name: str) -> tuple[Part, str]:
        part, _, rest = name.partition("/")
        return self._parts[part], rest
