"""Read one variable from a MATLAB 7.3 file, which is HDF5.

HDF5 data can lie in other files, be composed of other data sets, or pass through filters from plug-ins. The author of a
file decides which. This module reads only data within the file itself, compressed by deflate or not at all.
"""

import io
import itertools
import zlib

import h5py
import numpy as np
from jaxtyping import Num

from pyrseg_jax.data.images.claimed_size import MAX_DEFLATE
from pyrseg_jax.data.mat_variable import DamagedError, WrongKindError, check_shape

_DEFLATE, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
_MAX_NAMES = 100


def read_mat_73(data: bytes, wanted: str) -> tuple[Num[np.ndarray, "h w"] | None, list[str]]:
    """Return the variable of that name, or None, and the names of the variables in the file.

    Raises:
      DamagedError, WrongKindError: saying what is wrong, if the variable is not a map of numbers that lies in the file itself.
      Exception: HDF5's own, of many kinds, if the file is damaged.
    """
    with h5py.File(io.BytesIO(data), "r") as file:
        names = sorted(str(key) for key in itertools.islice(file, _MAX_NAMES) if str(key).isidentifier())
        link = file.get(wanted, getlink=True)
        if link is None:
            return None, names
        if not isinstance(link, h5py.HardLink):
            raise WrongKindError("is a link to other data: expected a map of numbers in the file itself")
        found = file[wanted]
        if not isinstance(found, h5py.Dataset):
            raise WrongKindError("is a group: expected a map of numbers")
        _check(found, len(data))
        # HDF5 counts rows first and MATLAB columns first: the array is stored transposed.
        return (_read_chunks(found, found.chunks, len(data)) if found.chunks else np.asarray(found)).T, names


def _check(found: h5py.Dataset, num_bytes: int) -> None:
    if found.external:
        raise WrongKindError("lies in another file (external storage): expected a map of numbers in the file itself")
    if found.is_virtual:
        raise WrongKindError("is composed of other data sets (virtual): expected a map of numbers in the file itself")
    kind = found.dtype.str.lstrip("<>|=")
    # Enumerations and references also look like numbers.
    if found.dtype.metadata or found.id.get_type().get_class() not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
        kind = "reference or other"
    check_shape(tuple(found.shape)[::-1], kind)
    needed, stored = found.size * found.dtype.itemsize, found.id.get_storage_size()
    if found.chunks:
        num_chunks = int(
            np.prod([-(-size // chunk) for size, chunk in zip(found.shape or (), found.chunks, strict=True)])
        )
        if found.id.get_num_chunks() != num_chunks:
            raise DamagedError(f"it holds {found.id.get_num_chunks()} of the {num_chunks} parts of the variable")
        needed = num_chunks * int(np.prod(found.chunks)) * found.dtype.itemsize
        if needed > MAX_DEFLATE * num_bytes:
            raise DamagedError(f"{num_bytes} bytes cannot hold a variable of {needed} bytes")
    elif stored != needed or needed > num_bytes:
        raise DamagedError(f"it holds {min(stored, num_bytes)} of the {needed} bytes of the variable")


def _read_chunks(found: h5py.Dataset, chunk: tuple[int, ...], num_bytes: int) -> Num[np.ndarray, "w h"]:
    """Read and unpack each chunk. HDF5 itself would unpack a chunk to any size."""
    properties = found.id.get_create_plist()
    filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    if unknown := [number for number, *_ in filters if number not in (_DEFLATE, _SHUFFLE)]:
        raise WrongKindError(f"is stored with HDF5's filter {unknown[0]}: expected deflate or no compression")
    shape: tuple[int, ...] = found.shape  # pyright: ignore[reportAssignmentType]  # None only where there is no data
    values = np.zeros(shape, found.dtype)
    size = int(np.prod(chunk)) * found.dtype.itemsize
    for place in itertools.product(*(range(0, n, step) for n, step in zip(shape, chunk, strict=True))):
        if found.id.get_chunk_info_by_coord(place).size > num_bytes:
            raise DamagedError("a part of the variable is larger than the file")
        mask, packed = found.id.read_direct_chunk(place)
        body = _unpacked(packed, [number for i, (number, *_) in enumerate(filters) if not mask >> i & 1], size, found)
        rows, columns = (slice(start, start + step) for start, step in zip(place, chunk, strict=True))
        target = values[rows, columns]
        target[...] = np.frombuffer(body, found.dtype).reshape(chunk)[: target.shape[0], : target.shape[1]]
    return values


def _unpacked(body: bytes, filters: list[int], size: int, found: h5py.Dataset) -> bytes:
    for number in reversed(filters):
        if number == _DEFLATE:
            body = zlib.decompressobj().decompress(body, size)
        else:  # shuffled: the first bytes of all numbers, then all second bytes, and so on
            body = np.frombuffer(body, np.uint8).reshape(found.dtype.itemsize, -1).T.tobytes()
    if len(body) != size:
        raise DamagedError(f"a part of the variable has {len(body)} of {size} bytes")
    return body
