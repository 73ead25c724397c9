"""Weight files of strangers: the right arrays, or one line that names the file; no more memory than the file has bytes."""

import argparse
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.models.weights.files import read_weights

ARRAYS = {"b.weight": np.arange(6, dtype="f4").reshape(2, 3), "a.bias": np.ones(3, "f2"), "n": np.array(5, "i8")}


def with_header(header, data: bytes, length: int | None = None) -> bytes:
    """Write a safetensors file with any header: text, or an object for JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype, shape, start, end) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def outcome(path) -> dict | str:
    """Return the arrays, or the error, which must be one printable line that begins with the file's name."""
    try:
        return read_weights(path).state_dict
    except UserError as error:
        assert str(error).startswith(str(path))
        assert escaped(str(error)) == str(error)
        assert len(str(error)) < len(str(path)) + 400
        return str(error)


def test_every_type_of_numbers_is_read(tmp_path):
    path = tmp_path / "w.safetensors"
    arrays = {
        kind: np.arange(4).astype(kind) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "bool")
    }
    path.write_bytes(save(arrays))
    found = read_weights(path).state_dict
    assert found.keys() == arrays.keys()
    for kind, array in arrays.items():
        np.testing.assert_array_equal(found[kind], array, strict=True)
    bits = np.array([0x3F80, 0xC000], "<u2")  # 1 and -2 in bfloat16
    path.write_bytes(with_header({"a": tensor("BF16", [2], 0, 4)}, bits.tobytes()))
    np.testing.assert_array_equal(read_weights(path).state_dict["a"], np.array([1, -2], "f4"), strict=True)


WRONG = {
    "a length beyond the file": (with_header({}, b"", 2**62), "its header is said to have 4611686018427387904 bytes"),
    "tensors that share bytes": (
        with_header({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 0, 8)}, bytes(8)),
        r"tensor 'b', F32 \(2,\), cannot lie at 0 to 8",
    ),
    "bytes between tensors": (
        with_header({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 16, 24)}, bytes(24)),
        "tensor 'b', .* cannot lie at 16 to 24",
    ),
    "bytes at the end": (with_header({"a": tensor("F32", [2], 0, 8)}, bytes(16)), "8 bytes at its end belong to no"),
    "an unknown type": (
        with_header({"a": tensor("F8_E4M3", [2], 0, 2)}, bytes(2)),
        "has the type 'F8_E4M3'.: expected",
    ),
    "a huge shape": (with_header({"a": tensor("F32", [2**40, 2**40], 0, 8)}, bytes(8)), "cannot lie at 0 to 8"),
    "a huge empty shape": (with_header({"a": tensor("F32", [2**62, 0, 2**62], 0, 0)}, b""), "cannot lie at 0 to 0"),
    "a negative shape": (
        with_header({"a": tensor("F32", [-2], 0, 8)}, bytes(8)),
        r"a.shape\[0\]=-2: expected at least",
    ),
    "too many sides": (with_header({"a": tensor("F32", [1] * 9, 0, 4)}, bytes(4)), "a.shape="),
    "a list": (with_header([1, 2], b""), "expected an object with keys and values, found list"),
    "nested lists": (with_header(b"[" * 50_000, b""), "this is not JSON"),
    "a huge header": (with_header(b" " * (2**24 + 1), b""), "its header has 16777217 bytes, expected at most"),
    "a name with a line break": (
        with_header({"a\nerror: b": tensor("F32", [2], 0, 8)}, bytes(8)),
        r"holds a tensor named 'a\\nerror: b'",
    ),
    "nothing": (with_header({}, b""), "holds no tensors"),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_header_is_named(tmp_path, content, message):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_weights(path)
    outcome(path)


@given(st.data())
def test_any_damage_is_the_same_arrays_or_one_line(tmp_path, data):
    """Damage of numbers cannot be seen; that of the header never changes names, shapes or types without a word."""
    content = bytearray(save(ARRAYS))
    (length,) = struct.unpack("<Q", content[:8])
    at = data.draw(st.integers(0, 8 + length - 1))
    new = data.draw(st.binary(max_size=3))
    content[at : at + data.draw(st.integers(0, 3))] = new
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    found = outcome(path)
    if not isinstance(found, str):
        assert sum(array.nbytes for array in found.values()) <= len(content)
        assert len(found) == len(ARRAYS)


@given(
    st.dictionaries(
        st.text(max_size=4), st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists), max_size=4
    )
)
def test_any_header_is_one_line(tmp_path, header):
    path = tmp_path / "w.safetensors"
    path.write_bytes(with_header(header, bytes(8)))
    assert isinstance(outcome(path), str)


def test_what_is_not_a_file_is_never_opened(tmp_path):
    for suffix in (".safetensors", ".pth"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        (tmp_path / f"link{suffix}").symlink_to("/dev/zero")
        (tmp_path / f"folder{suffix}").mkdir()
        for name, kind in (("pipe", "a named pipe"), ("link", "a device"), ("folder", "a folder")):
            with pytest.raises(UserError, match=f"{name}{suffix} is {kind}: expected a regular file"):
                read_weights(tmp_path / f"{name}{suffix}")


def test_unusual_tensors_of_pytorch_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    ones = torch.ones(3)
    path = tmp_path / "w.pth"
    for value, message in (
        (torch.zeros(1).expand(2**36), "claim 274877906944 bytes, and the file has"),
        (torch.eye(3).to_sparse(), "the tensor 'a' is sparse, quantized, nested, complex or without numbers"),
        (torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8), "the tensor 'a' is sparse, quantized"),
        (torch.ones(3, dtype=torch.complex64), "the tensor 'a' is sparse, quantized, nested, complex"),
        (torch.ones(3, device="meta"), "the tensor 'a' is sparse, .* or without numbers"),
    ):
        torch.save({"a": value}, path)
        with pytest.raises(UserError, match=message):
            read_weights(path)
        outcome(path)
    torch.save({1: ones}, path)
    with pytest.raises(UserError, match="holds a tensor named 1: expected names of printable characters"):
        read_weights(path)
    torch.save({"a": ones.bfloat16(), "b": torch.nn.Parameter(ones), "c": ones[::2]}, path)
    found = read_weights(path).state_dict
    assert {name: array.tolist() for name, array in found.items()} == {"a": [1] * 3, "b": [1] * 3, "c": [1] * 2}


def test_a_compressed_file_of_pytorch_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    content = io.BytesIO()
    torch.save({"a": torch.zeros(2**20)}, content)
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(content) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in whole.namelist():
            file.writestr(name, whole.read(name))
    with pytest.raises(UserError, match="bomb.pth cannot be read as PyTorch weights .the part .* is compressed"):
        read_weights(path)


@given(st.integers(0, 10**6), st.binary(max_size=3), st.integers(0, 3))
def test_any_damage_of_pytorchs_files_is_one_line(tmp_path, place, new, num_removed):
    torch = pytest.importorskip("torch")
    content = io.BytesIO()
    torch.save(
        {"a": torch.ones(2), "b": [1, {"c": torch.ones(3)}]}, content, _use_new_zipfile_serialization=place % 2 == 0
    )
    data = bytearray(content.getvalue())
    at = place % len(data)
    data[at : at + num_removed] = new
    path = tmp_path / "w.pth"
    path.write_bytes(data)
    outcome(path)


def test_a_program_in_a_pickle_is_not_run(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps({"a": os.getcwd}))
    assert "which could run code" in outcome(path)


def test_settings_and_scores_beside_the_weights_are_passed_over(tmp_path):
    torch = pytest.importorskip("torch")
    before = torch.serialization.get_safe_globals()
    about = {"args": argparse.Namespace(lr=0.1, out=Path("runs")), "best": np.float64(0.5), "curve": np.arange(3.0)}
    for is_zip in (True, False):
        torch.save(about | {"model": {"a": torch.ones(2)}}, tmp_path / "w.pth", _use_new_zipfile_serialization=is_zip)
        found = read_weights(tmp_path / "w.pth").state_dict
        assert {name: array.tolist() for name, array in found.items()} == {"a": [1, 1]}
    assert torch.serialization.get_safe_globals() == before


def test_the_state_dict_is_found_under_any_key(tmp_path, caplog):
    torch = pytest.importorskip("torch")
    path, ones, twos = tmp_path / "w.pth", {"a": torch.ones(2)}, {"a": 2 * torch.ones(2)}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}
    for key in ("model_ema", "state_dict_ema", "backbone", "generator"):
        torch.save({key: ones, "optimizer": optimizer, "epoch": 3, "model": {"name": "resnet50"}}, path)
        assert outcome(path)["a"].tolist() == [1, 1]
    torch.save({"state_dict": ones, "state_dict_ema": twos}, path)
    with caplog.at_level("INFO"):
        assert outcome(path)["a"].tolist() == [1, 1]
    assert "taking 'state_dict', not 'state_dict_ema'" in caplog.text
    torch.save({"student": ones, "teacher": twos}, path)
    assert "w.pth holds several networks ('student', 'teacher'): save the state dict of one alone" in outcome(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"", "cannot be read as PyTorch weights (it is empty): download it again"),
        ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "git lfs pull"),
        ("w.bin", b"\n<!DOCTYPE html><html>404 Not Found</html>", "(it is a web page): open it"),
        ("w.pth", save(ARRAYS), "(it is a safetensors file): rename it to end in .safetensors"),
        ("w.safetensors", b"PK\3\4" + bytes(60), "(it is a file of PyTorch): rename it to end in .pth"),
    ],
)
def test_what_a_failed_download_left_is_named(tmp_path, name, content, message):
    pytest.importorskip("torch")
    (tmp_path / name).write_bytes(content)
    assert message in outcome(tmp_path / name)


def test_addresses_and_programs_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    with pytest.raises(UserError, match="is an address: download the file and give its path"):
        read_weights(Path("https://download.pytorch.org/models/resnet50-0676ba61.pth"))
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "w.pt"))
    assert "is a TorchScript program, which is not run: save its weights with" in outcome(tmp_path / "w.pt")
