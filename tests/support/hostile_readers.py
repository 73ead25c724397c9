"""The readers of files that strangers may have made, each as a function of bytes that checks what it returns."""

import importlib.util
import io
import json
import re
import tempfile
import unicodedata
import unittest.mock
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pyrseg_jax.data.archive import open_archive
from pyrseg_jax.data.datasets.folder import read_class_names
from pyrseg_jax.data.decode import decode_image, decode_label, decode_pair, size_of
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.data.mat_labels import mat_to_png
from pyrseg_jax.data.tar_archive import TarArchive
from pyrseg_jax.data.zip_archive import ZipArchive
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.names import MAX_BYTES, file_name_of

SPACE = ade_layout(tuple(f"class {i}" for i in range(59)))
MARKERS = ("images/training", "images/validation")
CONTROL = {"Cc", "Cs", "Zl", "Zp"}  # Unicode's categories of control characters, lone surrogates, and ends of lines
ZIP_LIMIT = 2**26  # bytes to read from one zip: enough to see a bomb, and soon done


class Reader(NamedTuple):
    """A reader to try.

    read: reads bytes as a file in an empty folder, and checks the result; see `hostile.trial`.
    form: how the bytes are built, so that they can be changed without breaking the outer form: a key of
      `hostile_mutators.MUTATORS`.
    instruments: modules of Python whose branches guide the search.
    """

    read: Callable[[bytes, Path], None]
    form: str
    instruments: tuple[str, ...] = ("pyrseg_jax",)


def read_image(data: bytes, folder: Path) -> None:
    """Decode a photograph; the size in its header is that of its pixels."""
    try:
        size = size_of(data, "x.jpg")
    except UserError:
        size = None
    image = decode_image(data, "x.jpg")
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size, image.shape
    assert size == image.shape[:2], f"the header says {size}, the pixels are {image.shape[:2]}"


def read_label(data: bytes, folder: Path) -> None:
    """Decode a label map; it holds classes and void only, and no value that its bits cannot hold."""
    label = decode_label(data, "x.png", SPACE)
    _check_label(label)
    if data.startswith(b"\x89PNG") and data[24] < 8:  # the bit depth of a PNG; class i has the value i + 1
        assert (label[label != 255] < 2 ** data[24] - 1).all(), f"{data[24]} bits, but the labels {np.unique(label)}"


def _check_label(label: np.ndarray) -> None:
    assert label.dtype == np.uint8 and label.ndim == 2 and label.size, label.shape
    assert ((label < SPACE.num_classes) | (label == 255)).all(), np.unique(label)


def read_pair(data: bytes, folder: Path) -> None:
    """Decode an image with its label map; the first four bytes are the length of the image file."""
    length = int.from_bytes(data[:4], "little")
    image, label = data[4 : 4 + length], data[4 + length :]
    record = {"image": image, "label": label, "image_name": "x.jpg", "label_name": "x.png", "name": "x"}
    pair = decode_pair(record, SPACE)  # pyright: ignore[reportArgumentType]
    _check_label(pair.label)
    assert pair.image.dtype == np.uint8 and pair.image.shape == (*pair.label.shape, 3)


def read_mat(data: bytes, folder: Path) -> None:
    """Convert a MATLAB file to a PNG, which must be a label map of eight bits."""
    with Image.open(io.BytesIO(mat_to_png(data, "x.mat")), formats=["PNG"]) as image:
        assert image.mode == "L" and image.size[0] * image.size[1]


def read_zip(data: bytes, folder: Path) -> None:
    """Find a data set in a zip, and read every entry; no name leads out of its folder."""
    _read_archive(data, folder / "set.zip", ZipArchive)


def read_tar(data: bytes, folder: Path) -> None:
    """Find a data set in a tar, and read every entry; no name leads out of its folder."""
    with unittest.mock.patch.object(tempfile, "tempdir", str(folder)):  # where a compressed tar is unpacked
        _read_archive(data, folder / "set.tar", TarArchive)


def _read_archive(data: bytes, path: Path, kind: type) -> None:
    path.write_bytes(data)
    archive = open_archive(str(path), MARKERS, (path.name,), "a data set")
    assert isinstance(archive, ZipArchive | TarArchive) and isinstance(archive, kind)
    read, problems = 0, []
    for place in archive.folders():
        for name in archive.entries_in(place).files:
            assert "/" not in name and name != ".." and ".." not in place.split("/")
            try:
                read += len(archive.read(f"{place}/{name}"))
            except UserError as error:
                problems.append(error)
            if read > ZIP_LIMIT:
                return
    if problems:
        raise problems[0]


def read_export(data: bytes, folder: Path) -> None:
    """Read an exported model; all its parts fit together, and every weight is a finite number."""
    from pyrseg_jax.export.read import read_export

    path = folder / "model.zip"
    path.write_bytes(data)
    exported = read_export(path)
    assert exported.programs and all(height > 0 and width > 0 for height, width in exported.programs)
    assert exported.label_space.num_classes >= 1
    for name, array in exported.weights.items():
        assert array.dtype != object and (array.dtype.kind != "f" or np.isfinite(array).all()), name


def read_document(data: bytes, folder: Path) -> None:
    """Read one of the package's JSON files; the first line says which one, the rest is its text."""
    from support.hostile_documents import DOCUMENTS

    kind, _, text = data.partition(b"\n")
    read = DOCUMENTS.get(kind.decode(errors="replace"))
    if read is not None:
        read(text, folder)


def _read_weights(data: bytes, path: Path) -> None:
    from pyrseg_jax.models.weights.files import read_weights

    path.write_bytes(data)
    found = read_weights(path)
    assert found.state_dict and re.fullmatch("[0-9a-f]{64}", found.sha256)
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in found.state_dict.values())


def read_safetensors(data: bytes, folder: Path) -> None:
    """Read weights as safetensors."""
    _read_weights(data, folder / "x.safetensors")


def read_pth(data: bytes, folder: Path) -> None:
    """Read weights in PyTorch's format."""
    _read_weights(data, folder / "x.pth")


def read_classes(data: bytes, folder: Path) -> None:
    """Read `classes.txt`; the names differ, and each is one printable line."""
    (folder / "classes.txt").write_bytes(data)
    names = read_class_names(folder)
    assert names and len(set(names)) == len(names)
    assert all(name.strip() and not CONTROL & {*map(unicodedata.category, name)} for name in names), names
    ade_layout(names)


def read_metrics(data: bytes, folder: Path) -> None:
    """Continue a record: what is kept are whole lines, each step once, and no step after the given one."""
    from pyrseg_jax.reporting.logbook import Logbook

    (folder / "metrics.jsonl").write_bytes(data)
    from etils import epath

    Logbook(epath.Path(folder), num_steps=9, batch_size=1, first_step=5).close()
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert len(set(steps)) == len(steps) and all(type(step) is int and step <= 5 for step in steps), steps


def read_name(data: bytes, folder: Path) -> None:
    """Make a file name of any text; a file of that name lies in the folder."""
    name = file_name_of(data.decode(errors="surrogateescape"))
    assert len(name.encode()) <= MAX_BYTES and not CONTROL & {*map(unicodedata.category, name)}
    (folder / name).write_bytes(b"")
    assert [path.name for path in folder.iterdir()] == [name]


READERS: dict[str, Reader] = {
    "image": Reader(read_image, "image", ("pyrseg_jax", "PIL")),
    "label": Reader(read_label, "image", ("pyrseg_jax", "PIL")),
    "pair": Reader(read_pair, "pair", ("pyrseg_jax", "PIL")),
    "mat": Reader(read_mat, "mat", ("pyrseg_jax", "h5py")),
    "zip": Reader(read_zip, "zip", ("pyrseg_jax",)),
    "tar": Reader(read_tar, "tar", ("pyrseg_jax", "tarfile", "gzip")),
    "export": Reader(read_export, "zip", ("pyrseg_jax", "jax._src.export", "numpy.lib")),
    "document": Reader(read_document, "json"),
    "safetensors": Reader(read_safetensors, "safetensors"),
    "pth": Reader(read_pth, "zip", ("pyrseg_jax", "torch.serialization", "torch._weights_only_unpickler")),
    "classes": Reader(read_classes, "text"),
    "metrics": Reader(read_metrics, "text"),
    "name": Reader(read_name, "text"),
}
OPTIONAL = {"pth": "torch"}  # readers of a package that may be missing


def is_available(name: str) -> bool:
    """Return whether the package that a reader needs is installed."""
    return name not in OPTIONAL or importlib.util.find_spec(OPTIONAL[name]) is not None


def unpack(data: bytes) -> list[tuple[str, bytes]] | None:
    """Return the entries of a zip, or None if it is not one or is too large to be rebuilt."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            infos = file.infolist()
            if sum(info.file_size for info in infos) > 2**22:
                return None
            return [(info.filename, file.read(info)) for info in infos]
    except Exception:  # whatever zipfile raises for a zip that is broken already
        return None
