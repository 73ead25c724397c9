"""Read one variable from MATLAB files of version 4 to 7. Source: MAT-File Format (MathWorks), chapter 1 (level 5) and 2 (level 4).

A general reader unpacks whatever a file holds: cells, objects, functions, of any size. This one knows a single kind of variable, a
map of numbers, and checks its size before it unpacks it.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from pyrseg_jax.data.images.claimed_size import MAX_DEFLATE
from pyrseg_jax.data.mat_variable import DamagedError, Variable, check_shape

_NAME = re.compile(rb"[A-Za-z]\w{0,62}\Z", re.ASCII)
_MATRIX, _COMPRESSED = 14, 15
# Of the numbers as they are stored, and of the variable as MATLAB holds it.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {
    1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4",
    13: "u4", 14: "i8", 15: "u8", 16: "function", 17: "opaque",
}  # fmt: skip
_OPAQUE = 17
_IS_COMPLEX = 0x08  # flag
_HEADER_BYTES = 4096  # enough for the flags, sizes and name of a variable, unpacked
_V4_TYPES = ("f8", "f4", "i4", "i2", "u2", "u1")


class _Element(NamedTuple):
    """A tagged piece of data: its type, where its data begins and ends, and where the next one begins."""

    kind: int
    start: int
    end: int
    next: int


def read_mat(data: bytes, wanted: str) -> tuple[Num[np.ndarray, "h w"] | None, list[str]]:
    """Return the variable of that name, or None, and the names of all variables that come before it.

    Raises:
      DamagedError: saying what is wrong, if the file is damaged or the variable is anything but a two-dimensional map of numbers.
    """
    variables = _variables_of_v4(data) if 0 in data[:4] else _variables_of_v5(data)
    names = []
    for variable in variables:
        names.append(variable.name)
        if variable.name == wanted:
            return variable.read(), names
    return None, names


def _variables_of_v5(data: bytes) -> Iterator[Variable]:
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise DamagedError("its header is not that of a MATLAB file")
    position = 128
    while position < len(data):
        element = _element(data, position, order)
        position = element.end if element.kind == _COMPRESSED else element.next
        if element.kind not in (_MATRIX, _COMPRESSED):
            raise DamagedError(f"it holds an element of the unknown type {element.kind}")
        if element.end > len(data):
            raise DamagedError(f"it is cut off: {len(data)} bytes of {element.end}")
        if element.kind == _COMPRESSED:
            yield _variable(_Packed(data[element.start : element.end]), order)
        else:
            yield _variable(_Plain(data[element.start - 8 : element.end]), order)


class _Plain:
    """The bytes of a variable that is stored as it is."""

    def __init__(self, data: bytes):
        self.data = data

    def up_to(self, end: int) -> bytes:
        return self.data[:end]


class _Packed:
    """The bytes of a variable that is stored compressed; only as many as asked for are unpacked."""

    def __init__(self, data: bytes):
        self.data = data

    def up_to(self, end: int) -> bytes:
        if end > _HEADER_BYTES + MAX_DEFLATE * len(self.data):
            raise DamagedError(f"{len(self.data)} compressed bytes cannot hold {end} bytes")
        try:
            return zlib.decompressobj().decompress(self.data, end)
        except zlib.error as error:
            raise DamagedError(f"it cannot be unpacked: {error}") from error


def _variable(source: _Plain | _Packed, order: str) -> Variable:
    head = source.up_to(_HEADER_BYTES)
    if _element(head, 0, order).kind != _MATRIX:
        raise DamagedError("a compressed element holds no variable")
    flags = _element(head, 8, order)
    (word,) = struct.unpack_from(order + "I", head, flags.start)
    if word & 0xFF == _OPAQUE:  # an object, with a header of its own
        return Variable("", lambda: None)
    sizes = _element(head, flags.next, order)
    label = _element(head, sizes.next, order)
    name = head[label.start : label.end]
    if label.end > len(head) or flags.end - flags.start != 8 or sizes.end - sizes.start > 128:
        raise DamagedError("the header of a variable is not well-formed")
    if not name:
        return Variable("", lambda: None)  # MATLAB's own data about objects
    if not _NAME.match(name):
        raise DamagedError("a variable has a name that MATLAB does not allow")
    shape = tuple(np.frombuffer(head[sizes.start : sizes.end], order + "i4").tolist())
    kind = _CLASSES.get(word & 0xFF, "unknown")
    if word >> 8 & _IS_COMPLEX:
        kind = "complex"
    return Variable(name.decode("ascii"), lambda: _read_matrix(source, head, label.next, shape, kind, order))


def _read_matrix(
    source: _Plain | _Packed, head: bytes, position: int, shape: tuple[int, ...], kind: str, order: str
) -> Num[np.ndarray, "h w"]:
    check_shape(shape, kind)
    element = _element(head, position, order)
    stored = _TYPES.get(element.kind)
    if stored is None:
        raise DamagedError(f"its numbers have the unknown type {element.kind}")
    needed = shape[0] * shape[1] * int(stored[1])
    if element.end - element.start != needed:
        raise DamagedError(f"it holds {element.end - element.start} bytes instead of {needed}")
    body = source.up_to(element.end)[element.start :]
    if len(body) != needed:
        raise DamagedError(f"it is cut off: {len(body)} of {needed} bytes")
    return np.frombuffer(body, order + stored).reshape(shape, order="F").astype(kind)


def _element(data: bytes, position: int, order: str) -> _Element:
    if position + 8 > len(data):
        raise DamagedError("it is cut off within a variable")
    first, length = struct.unpack_from(order + "II", data, position)
    if first >> 16:  # at most four bytes are stored within the tag itself
        return _Element(first & 0xFFFF, position + 4, position + 4 + min(first >> 16, 4), position + 8)
    start = position + 8
    return _Element(first, start, start + length, start + length + -length % 8)


def _variables_of_v4(data: bytes) -> Iterator[Variable]:
    position = 0
    while position < len(data):
        order = next((order for order in "<>" if _v4_type(data, position, order) is not None), None)
        if order is None or position + 20 > len(data):
            raise DamagedError("its header is not that of a MATLAB file")
        kind = _v4_type(data, position, order)
        _, rows, columns, is_complex, name_length = struct.unpack_from(order + "5i", data, position)
        start = position + 20 + name_length
        name = data[position + 20 : start].rstrip(b"\0")
        if not 0 < name_length <= 64 or not _NAME.match(name) or rows < 0 or columns < 0:
            raise DamagedError("the header of a variable is not well-formed")
        assert kind is not None
        stored, group = _V4_TYPES[kind // 10], kind % 10
        end = start + rows * columns * int(stored[1]) * (2 if is_complex else 1)
        if end > len(data):
            raise DamagedError(f"it is cut off: {len(data)} bytes of {end}")
        position = end
        held = "complex" if is_complex else {0: stored, 1: "char", 2: "sparse"}[group]
        yield Variable(name.decode("ascii"), _reader_of_v4(data[start:end], (rows, columns), held, order))


def _reader_of_v4(body: bytes, shape: tuple[int, int], kind: str, order: str):
    def read() -> Num[np.ndarray, "h w"]:
        check_shape(shape, kind)
        return np.frombuffer(body, order + kind).reshape(shape, order="F").astype(kind)

    return read


def _v4_type(data: bytes, position: int, order: str) -> int | None:
    """Return the two digits for the types of numbers and of the matrix, or None in the other byte order."""
    if position + 4 > len(data):
        return None
    (number,) = struct.unpack_from(order + "i", data, position)
    machine, digits = divmod(number, 1000)
    is_known = machine == {"<": 0, ">": 1}[order] and digits // 100 == 0
    return digits if is_known and digits // 10 < len(_V4_TYPES) and digits % 10 <= 2 else None
