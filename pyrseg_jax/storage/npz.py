"""Read NumPy's `.npz` files against a list of expected arrays: names, types and shapes are checked before data is touched."""

import io
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.storage.documents import shorten
from pyrseg_jax.storage.stored_zip import StoredZip

SUFFIX = ".npy"
MAX_HEADER_BYTES = 10_000
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class ArraySpec(NamedTuple):
    """Shape and type of an expected array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def read_npz(content: bytes, expected: Mapping[str, ArraySpec]) -> dict[str, np.ndarray]:
    """Read an uncompressed `.npz` file that must hold exactly the expected arrays.

    Args:
      content: the bytes of the file.
      expected: shapes and types by name.

    Raises:
      UserError: naming the array that is missing, not expected, of another type or shape, or cut off.
      zipfile.BadZipFile, …: if the content is damaged or another kind of file.
    """
    parts = StoredZip(io.BytesIO(content))
    found = {name.removesuffix(SUFFIX): size for name, size in parts.sizes.items() if name.endswith(SUFFIX)}
    unexpected = [
        name for name in parts.sizes if name.removesuffix(SUFFIX) not in expected or not name.endswith(SUFFIX)
    ]
    missing = [name for name in expected if name not in found]
    if missing or unexpected:
        name, *others = missing or unexpected
        more = f" and {len(others)} more" if others else ""
        raise UserError(
            f"the array {shorten(name.removesuffix(SUFFIX))}{more} is {'missing' if missing else 'not expected'}"
        )
    return {name: _read_array(name, parts.read(name + SUFFIX), spec) for name, spec in expected.items()}


def _read_array(name: str, content: bytes, spec: ArraySpec) -> np.ndarray:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        shape, is_fortran, dtype = _HEADERS[version](stream, max_header_size=MAX_HEADER_BYTES)
    except Exception as error:  # a header is a Python literal, and each kind of damage raises an error of its own
        raise UserError(f"the header of the array {shorten(name)} cannot be read ({reason_of(error)})") from error
    if dtype != spec.dtype:
        raise UserError(f"the array {shorten(name)} has the type {dtype}: expected {spec.dtype}")
    if shape != spec.shape:
        raise UserError(f"the array {shorten(name)} has the shape {shorten(shape)}: expected {spec.shape}")
    start, wanted = stream.tell(), math.prod(spec.shape) * spec.dtype.itemsize
    if len(content) - start != wanted:
        raise UserError(f"the array {shorten(name)} has {len(content) - start} bytes of data: expected {wanted}")
    array = np.frombuffer(content, spec.dtype, offset=start)
    return array.reshape(spec.shape, order="F" if is_fortran else "C")
