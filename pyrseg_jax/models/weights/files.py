"""Read files of weights without running any code that they contain."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.models.weights.pytorch_file import MAX_BYTES, read_pytorch
from pyrseg_jax.models.weights.safetensors_file import read_safetensors
from pyrseg_jax.storage.documents import shorten
from pyrseg_jax.storage.regular_file import open_regular_file

SAFETENSORS, PICKLED = (".safetensors",), (".pth", ".pt", ".bin", ".tar", ".ckpt")
NUM_SNIFFED = 64  # bytes at the start of a file that tell kinds apart
MAX_TENSORS = 100_000  # the largest networks have some thousands


class WeightFile(NamedTuple):
    """The content of a weight file.

    Attributes:
      state_dict: arrays by name; floating-point arrays of PyTorch's formats as float32, all others as stored.
      sha256: SHA-256 of the file, in hexadecimal.
    """

    state_dict: dict[str, np.ndarray]
    sha256: str


def read_weights(path: Path) -> WeightFile:
    """Read a `.safetensors` file, or one of PyTorch's (`.pth`, `.pt`, `.bin`, `.tar`, `.ckpt`), which needs PyTorch installed.

    Raises:
      UserError: naming the file, if it is missing, damaged, of another kind, or holds more than weights.
    """
    if re.match(r"(https?|ftp|s3|gs):/", str(path)):
        raise UserError(
            f"{path} is an address: download the file and give its path; only hf:// addresses are downloaded"
        )
    if not os.path.lexists(path):
        whole = "" if path.is_absolute() else f" ({path.absolute()})"
        raise UserError(f"{path}: there is no such file of weights{whole}")
    suffix = path.suffix.lower()
    if suffix not in SAFETENSORS + PICKLED:
        raise UserError(f"{path} is not a weight file: expected a name ending in {', '.join(SAFETENSORS + PICKLED)}")
    with naming_file(str(path), "cannot be read", "check its permissions, or download it again"):
        _check_kind(path, suffix)
        state = read_safetensors(path) if suffix in SAFETENSORS else read_pytorch(path)
        digest = sha256_of(path)
    if not state:
        raise UserError(f"{path} holds no tensors: expected the state dict of a network")
    if len(state) > MAX_TENSORS:
        raise UserError(
            f"{path} holds {len(state)} tensors: expected the state dict of a network, at most {MAX_TENSORS}"
        )
    for name in state:
        if not name.isprintable():
            raise UserError(f"{path} holds a tensor named {shorten(name)}: expected names of printable characters")
    return WeightFile(state, digest)


def _check_kind(path: Path, suffix: str) -> None:
    """Raise UserError if the first bytes are those of another kind of file, as failed downloads leave them."""
    with open_regular_file(path, MAX_BYTES) as file:
        start = file.read(NUM_SNIFFED)
    kind = "safetensors" if suffix in SAFETENSORS else "PyTorch weights"
    is_pytorch, is_safetensors = start.startswith((b"PK", b"\x80")), start[8:10] == b'{"'
    if not start:
        found, advice = "it is empty", "download it again"
    elif start.startswith(b"version https://git-lfs"):
        found, advice = "it is a pointer of Git LFS", "run `git lfs pull`, or download the file that it stands for"
    elif start.lstrip()[:1] == b"<":
        found, advice = "it is a web page", "open it to see why, and download the weights again"
    elif suffix in SAFETENSORS and is_pytorch and not is_safetensors:
        found, advice = "it is a file of PyTorch", "rename it to end in .pth"
    elif suffix in PICKLED and is_safetensors:
        found, advice = "it is a safetensors file", "rename it to end in .safetensors"
    else:
        return
    raise UserError(f"{path} cannot be read as {kind} ({found}): {advice}")


def read_parts(paths: Sequence[Path]) -> WeightFile:
    """Read one network whose weights are in several files, such as an encoder's and a decoder's.

    Args:
      paths: the files, see `read_weights`.

    Returns:
      all arrays. The SHA-256 is the file's own or, of several files, that of their digests in hexadecimal, one after the other.

    Raises:
      UserError: as `read_weights`, and if an array is in two of the files.
    """
    parts = [read_weights(path) for path in paths]
    if len(parts) == 1:
        return parts[0]
    state, found_in = {}, {}
    for path, part in zip(paths, parts, strict=True):
        for name, array in part.state_dict.items():
            if name in state:
                raise UserError(
                    f"{found_in[name]} and {path} both hold a tensor named {shorten(name)}: expected the parts of one network, "
                    "such as the files of an encoder and of its decoder"
                )
            state[name], found_in[name] = array, path
    return WeightFile(state, hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest())


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
