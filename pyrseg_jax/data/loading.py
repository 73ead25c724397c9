"""Read and decode single pairs, so that whatever goes wrong with one becomes an error that names its file."""

import contextlib
from collections.abc import Iterator

from pyrseg_jax.data.decode import Pair, decode_pair
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.source import FileSource, Record, Source
from pyrseg_jax.errors import naming_file


def load_pair(source: Source, index: int, label_space: LabelSpace) -> tuple[Record, Pair]:
    """Read and decode one pair of a split.

    Raises:
      UserError: naming the file, whatever a library raises for it, short memory included.
    """
    with naming_pair(source, index):
        record = source[index]
        return record, decode_pair(record, label_space)


@contextlib.contextmanager
def naming_pair(source: Source, index: int) -> Iterator[None]:
    """Turn every exception inside into a UserError that names a pair of the split."""
    name = source.place_of(index) if isinstance(source, FileSource) else f"record {index} of {source!r}"
    with naming_file(name, "or its label map cannot be used", "replace the files or remove them from the data set"):
        yield


def place_of(source: Source, index: int) -> str:
    """Return the name of a record's image, for messages."""
    return source.place_of(index) if isinstance(source, FileSource) else source[index]["image_name"]


def may_pass(error: BaseException) -> bool:
    """Return whether an error may be gone at the next try, although no file changes: short memory, a disk, permissions.

    Libraries that decode images raise OSErrors, too, but without the number that the operating system gives.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None):
            return True
        cause = cause.__cause__
    return False
