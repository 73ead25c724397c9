"""Open a zip file from a stranger. The standard library reads its list of parts whole, however large the file says it is."""

import io
import zipfile
from typing import BinaryIO, cast

from pyrseg_jax.errors import UserError


def open_zip(file: io.BufferedIOBase, max_bytes: int) -> zipfile.ZipFile:
    """Read the list of parts of a zip file.

    Args:
      file: the open file; it must stay open.
      max_bytes: the most bytes that the list may have. Each part takes about 50 bytes and its name.

    Raises:
      UserError: saying that the list is larger; the caller names the file.
      zipfile.BadZipFile, OSError, struct.error, …: if the list cannot be read.
    """
    limited = _Limited(file, max_bytes)
    found = zipfile.ZipFile(cast(BinaryIO, limited))
    limited.limit = None  # from here on, the caller knows the sizes of the parts and checks them
    return found


class _Limited:
    """A file that refuses to read more than `limit` bytes at once, as long as there is a limit."""

    def __init__(self, file: io.BufferedIOBase, limit: int):
        self._file = file
        self.limit: int | None = limit

    def read(self, size: int = -1) -> bytes:
        if self.limit is None:
            return self._file.read(size)
        content = self._file.read(self.limit + 1 if size is None or size < 0 else min(size, self.limit + 1))
        if len(content) > self.limit:
            raise UserError(f"its list of parts takes more than {self.limit / 2**20:.0f} MiB")
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
