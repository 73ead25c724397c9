"""Read files of weights without running any code that they contain."""

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from pyrseg_jax.errors import UserError

SAFETENSORS, PICKLED = (".safetensors",), (".pth", ".pt", ".bin", ".tar", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which training programs keep the weights


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

    PyTorch's files are programs for Python's unpickler. They are read with `weights_only=True`, which builds tensors and containers
    and nothing else: anything else in the file ends the reading and is not run.

    Raises:
      UserError: naming the file, if it is missing, damaged, of another kind, or holds more than weights.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of weights ({path.absolute()})")
    suffix = path.suffix.lower()
    if suffix in SAFETENSORS:
        state = _read_safetensors(path)
    elif suffix in PICKLED:
        state = _read_pickled(path)
    else:
        raise UserError(f"{path} is not a weight file: expected a name ending in {', '.join(SAFETENSORS + PICKLED)}")
    if not state:
        raise UserError(f"{path} holds no tensors: expected the state dict of a network")
    return WeightFile(state, sha256_of(path))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a dict
    except (SafetensorError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as safetensors ({_line(error)}): it is cut off or of another format; download it again"
        ) from error


def _read_pickled(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch  # pyright: ignore[reportMissingImports]  # optional: only .pth files need it
    except ImportError as error:
        raise UserError(
            f"{path} is in PyTorch's own format: run `pip install torch` to read it, or use a .safetensors file"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} was not read: it is damaged, or it holds objects other than weights, which could run code"
            f"{_asked_for(error)}; if you trust it, save its state dict alone, as .safetensors"
        ) from error
    # PyTorch raises many kinds of errors for files that are cut off or of another format.
    except Exception as error:
        raise UserError(f"{path} cannot be read as PyTorch weights ({_line(error)}): download it again") from error
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}: expected the state dict of a network")
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    return {
        name: (value.float() if value.is_floating_point() else value).numpy(force=True)
        for name, value in tensors.items()
    }


def _asked_for(error: Exception) -> str:
    """Return the name of the function that a pickle asked for, which PyTorch's message mentions."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" (it asks for {found[1]})" if found else ""


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".split("\n")[0][:160]
