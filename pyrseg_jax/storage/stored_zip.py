"""Read zip files whose parts are stored without compression. Nothing in them can make memory grow beyond the file's own size."""

import io
import zipfile
from collections.abc import Mapping

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.documents import shorten
from pyrseg_jax.storage.zip_directory import open_zip

MAX_DIRECTORY_BYTES = 8 * 2**20  # of the list of parts: some hundred thousand
UNUSUAL_FLAGS = 0x1 | 0x20 | 0x40 | 0x2000  # encrypted in one of three ways, or a patch of another file


class StoredZip:
    """The parts of a zip file, by name.

    Args:
      file: the open file; it must stay open.

    Raises:
      UserError: saying what is wrong with the list of parts: a name that occurs twice or leads out of a folder, a part that is
        compressed or encrypted, or more bytes than the file has.
      zipfile.BadZipFile, OSError, struct.error, …: if the list cannot be read at all.
    """

    def __init__(self, file: io.BufferedIOBase):
        self._zip = open_zip(file, MAX_DIRECTORY_BYTES)
        self._parts = _check(self._zip.infolist(), file.seek(0, io.SEEK_END))

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each part, by its name, in the order of the list."""
        return {name: part.file_size for name, part in self._parts.items()}

    def read(self, name: str) -> bytes:
        """Return a part whole; raises `zipfile.BadZipFile` if its checksum is wrong or it is cut off."""
        content = self._zip.read(self._parts[name])
        if len(content) != self._parts[name].file_size:
            raise zipfile.BadZipFile(f"{name!r} is cut off")
        return content


def _check(parts: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for part in parts:
        name = part.orig_filename  # `filename` ends at the first zero byte
        if name in found:
            raise UserError(f"the part {shorten(name)} occurs twice")
        if not name.isprintable() or "\\" in name or name.startswith("/") or {"", ".", ".."} & set(name.split("/")):
            raise UserError(f"the part {shorten(name)} has a name that is not a plain file name")
        if part.flag_bits & UNUSUAL_FLAGS:
            raise UserError(f"the part {shorten(name)} is encrypted")
        if part.compress_type != zipfile.ZIP_STORED or part.compress_size != part.file_size:
            raise UserError(f"the part {shorten(name)} is compressed: expected parts that are stored as they are")
        found[name] = part
    # Parts that share their bytes could otherwise add up to any amount.
    if sum(part.file_size for part in found.values()) > size:
        raise UserError("its parts claim more bytes than the file has")
    return found
