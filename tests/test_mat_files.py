"""MATLAB files from strangers: only a map of numbers in the file itself is read, and its size is checked before its data."""

import io
import struct
import time
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from support.native_files import mat, mat_73

from pyrseg_jax.data.mat_labels import mat_to_png, read_label_variable
from pyrseg_jax.errors import UserError

DTYPES = ["uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


def hdf5(write) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        write(file)
    return buffer.getvalue()


@given(
    st.sampled_from(DTYPES),
    st.sampled_from(["4", "5"]),
    st.booleans(),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(0, 9),
)
def test_numbers_are_those_that_scipy_reads(dtype, version, is_compressed, height, width, seed):
    values = np.random.default_rng(seed).integers(0, 120, (height, width)).astype(dtype)
    if version == "4" and dtype in ("int8", "uint32", "int64", "uint64", "uint16"):
        values = values.astype(np.float64)
    others = {"names": values[:1], "text": "abc"} | ({} if version == "4" else {"cells": np.array(["a", 3], object)})
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, others | {"S": values}, format=version, do_compression=is_compressed and version == "5")
    found = read_label_variable(buffer.getvalue(), "x.mat")
    np.testing.assert_array_equal(found, scipy.io.loadmat(io.BytesIO(buffer.getvalue()))["S"])


@given(st.sampled_from(DTYPES), st.booleans(), st.booleans(), st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_numbers_of_version_7_3_are_those_that_hdf5_reads(dtype, is_chunked, is_shuffled, height, width, seed):
    values = np.random.default_rng(seed).integers(0, 120, (height, width)).astype(dtype)
    options = (
        {"chunks": (min(7, width), min(9, height)), "compression": "gzip", "shuffle": is_shuffled} if is_chunked else {}
    )
    data = hdf5(lambda file: file.create_dataset("S", data=values.T, **options))
    np.testing.assert_array_equal(read_label_variable(data, "x.mat"), values)


def secret(tmp_path) -> str:
    path = tmp_path / "secret"
    path.write_bytes(b"a password that is nobody's business")
    return str(path)


def virtual(file, path: str) -> None:
    layout = h5py.VirtualLayout((6, 6), "u1")
    layout[:] = h5py.VirtualSource(path, "T", (6, 6))
    file.create_virtual_dataset("S", layout)


HDF5_PROBLEMS = {
    "external storage": (
        lambda file, path: file.create_dataset("S", (6, 6), "u1", external=[(path, 0, 36)]),
        r"lies in another file \(external storage\)",
    ),
    "virtual": (virtual, r"is composed of other data sets \(virtual\)"),
    "external link": (
        lambda file, path: file.__setitem__("S", h5py.ExternalLink(path, "T")),
        "is a link to other data",
    ),
    "soft link": (lambda file, path: file.__setitem__("S", h5py.SoftLink("/T")), "is a link to other data"),
    "group": (lambda file, path: file.create_group("S"), "is a group"),
    "never written": (lambda file, path: file.create_dataset("S", (6, 6), "u1"), "it holds 0 of the 36 bytes"),
    "no chunks written": (
        lambda file, path: file.create_dataset("S", (6, 6), "u1", chunks=(3, 3)),
        "it holds 0 of the 4 parts of the variable",
    ),
    "huge": (
        lambda file, path: file.create_dataset("S", (200_000, 200_000), "f8", chunks=(1000, 1000), compression="gzip"),
        "40000 million pixels: the limit is 100 million",
    ),
    "a filter of a plug-in": (
        lambda file, path: file.create_dataset("S", data=np.ones((6, 6), int), compression="lzf"),
        "is stored with HDF5's filter 32000",
    ),
    "checksums": (
        lambda file, path: file.create_dataset("S", data=np.ones((6, 6), int), fletcher32=True),
        "is stored with HDF5's filter 3",
    ),
    "references": (
        lambda file, path: file.create_dataset("S", (2, 2), h5py.ref_dtype),
        "is not a map of numbers",
    ),
    "texts": (lambda file, path: file.create_dataset("S", (2, 2), h5py.string_dtype()), "is not a map of numbers"),
    "records": (lambda file, path: file.create_dataset("S", (2, 2), [("a", "u1")]), "is not a map of numbers"),
}


@pytest.mark.parametrize("kind", HDF5_PROBLEMS)
def test_hdf5_data_that_is_not_a_map_in_the_file_itself_is_refused(kind, tmp_path):
    write, message = HDF5_PROBLEMS[kind]
    path = secret(tmp_path)
    with pytest.raises(UserError, match=rf"x\.mat.*{message}"):
        read_label_variable(hdf5(lambda file: write(file, path)), "x.mat")


def test_a_chunk_that_unpacks_to_more_than_its_size_takes_no_memory():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        chunked = file.create_dataset("S", (8, 8), "u1", chunks=(8, 8), compression="gzip")
        chunked.id.write_direct_chunk((0, 0), zlib.compress(bytes(300_000_000), 9))
    tracemalloc.start()
    assert read_label_variable(buffer.getvalue(), "x.mat").shape == (8, 8)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def compressed_variable(height: int, width: int, body: bytes, kind: int = 9, dimensions: int = 2) -> bytes:
    """Return a file of version 5 whose compressed variable S claims a size; class uint8 unless `kind` says otherwise."""
    shape = struct.pack(f"<II{dimensions}i", 5, 4 * dimensions, *(height, width, *[1] * (dimensions - 2)))
    inner = struct.pack("<IIII", 6, 8, kind, 0) + shape + bytes(-len(shape) % 8) + struct.pack("<HHI", 1, 1, ord("S"))
    inner += struct.pack("<II", 2, height * width & 0xFFFFFFFF) + body
    packed = zlib.compress(struct.pack("<II", 14, len(inner) & 0xFFFFFFFF) + inner, 9)
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    return header + struct.pack("<II", 15, len(packed)) + packed


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (compressed_variable(60_000, 60_000, bytes(1000)), "3600 million pixels: the limit is 100 million"),
        (compressed_variable(9_000, 9_000, bytes(1000)), "compressed bytes cannot hold"),
        (compressed_variable(300, 300, bytes(1000)), "it is cut off: 1000 of 90000 bytes|compressed bytes cannot hold"),
        (compressed_variable(-4, 4, bytes(16)), "is not a map of numbers"),
        (compressed_variable(4, 4, bytes(16), dimensions=3), r"is not a map of numbers \(shape \(4, 4, 1\)"),
        (compressed_variable(4, 4, bytes(16), kind=1), "is not a map of numbers .*cell"),
        (compressed_variable(4, 4, bytes(16), kind=3), "is not a map of numbers .*object"),
        (compressed_variable(4, 4, bytes(16), kind=5), "is not a map of numbers .*sparse"),
        (compressed_variable(4, 4, bytes(16), kind=16), "is not a map of numbers .*function"),
        (compressed_variable(4, 4, bytes(16), kind=9 | 0x800), "is not a map of numbers .*complex"),
        (struct.pack("<5i", 0, 2**30, 2**30, 0, 2) + b"S\0" + bytes(9), "it is cut off"),
        (struct.pack("<5i", 0, 2, 2, 0, 2) + b"\r\n" + bytes(32), "the header of a variable is not well-formed"),
        (mat(np.ones((3, 4)) * 1j), "is not a map of numbers .*complex"),
        (mat(None, **{f"variable{i}": 1 for i in range(30)}), r"has no variable S, .*variable9, …\)"),
    ],
)
def test_a_matlab_file_that_claims_too_much_or_something_else_is_refused_at_once(data, message):
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(UserError, match=rf"x\.mat.*({message})"):
        read_label_variable(data, "x.mat")
    assert time.monotonic() - start < 2 and tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


VALUES = np.arange(63).reshape(7, 9).astype(np.uint8)
SEEDS = [mat(VALUES), mat(VALUES.astype(float), names="abc"), mat_73(VALUES), compressed_variable(4, 4, bytes(16))]


@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=5), st.floats(0.2, 1))
def test_any_damage_to_a_matlab_file_is_read_or_named(seed, changes, share):
    data = bytearray(seed)
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    damaged = bytes(data[: int(len(data) * share)] if share < 0.7 else data)
    try:
        mat_to_png(damaged, "x.mat")
    except UserError as error:
        assert str(error).startswith("x.mat") and str(error).isprintable() and len(str(error)) < 500
