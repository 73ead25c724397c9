"""Read zip files whose parts are stored without compression. Nothing in them can make memory grow beyond the file's own size."""

import io
import zipfile
from collections.abc import Mapping
from typing import BinaryIO, cast

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.documents import shorten

MAX_DIRECTORY_BYTES = 8 * 2**20  # the list of parts: about 50 bytes and a name for each
IS_ENCRYPTED = 0x1  # a bit of a part's flags
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
        source = _Limited(file)
        self._zip = zipfile.ZipFile(cast(BinaryIO, source))
        source.limit = None  # from here on, the sizes of the parts are known and checked
        self._parts = _check(self._zip.infolist(), source.size)

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


class _Limited:
    """A file that refuses to read the list of parts when that is too large: the standard library reads all of it at once."""

    def __init__(self, file: io.BufferedIOBase):
        self._file = file
        self.size = file.seek(0, 2)
        self.limit: int | None = MAX_DIRECTORY_BYTES

    def read(self, size: int = -1) -> bytes:
        if self.limit is None:
            return self._file.read(size)
        content = self._file.read(self.limit + 1 if size is None or size < 0 else min(size, self.limit + 1))
        if len(content) > self.limit:
            raise UserError(f"its list of parts takes more than {self.limit >> 20} MiB")
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


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
