"""Read weights in PyTorch's own formats without running code that they contain."""

import io
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

import numpy as np

from pyrseg_jax.errors import UserError, naming_file, reason_of
from pyrseg_jax.storage.documents import shorten
from pyrseg_jax.storage.regular_file import open_regular_file
from pyrseg_jax.storage.stored_zip import StoredZip

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys under which training programs keep the weights
MAX_BYTES = 16 * 2**30
# Tensors may share their numbers, and so claim more bytes than the file has. Weights that are tied to each other do it, at most
# this many times; a file of a few bytes that claims gigabytes does nothing else.
MAX_SHARING, ALWAYS_ALLOWED_BYTES = 8, 64 * 2**20


def read_pytorch(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file that `torch.save` wrote, by name; floating-point numbers as float32, all others as stored.

    PyTorch's files are programs for Python's unpickler. They are read with `weights_only=True`, which builds tensors and containers
    and nothing else: anything else in the file ends the reading and is not run.

    Raises:
      UserError: naming the file and the tensor, if it is damaged, holds more than weights, or PyTorch is not installed.
      OSError: if the file cannot be read.
    """
    with open_regular_file(path, MAX_BYTES) as file:
        try:
            import torch  # pyright: ignore[reportMissingImports]  # optional: only .pth files need it
        except ImportError as error:
            raise UserError(
                f"{path} is in PyTorch's own format: run `pip install torch` to read it, or use a .safetensors file"
            ) from error
        num_bytes = file.seek(0, 2)
        _check_zip(file, path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch warns of what a damaged file says before it raises an error
                content = torch.load(cast(IO[bytes], file), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{path} was not read: it is damaged, or it holds objects other than weights, which could run code"
                f"{_asked_for(error)}; if you trust it, save its state dict alone, as .safetensors"
            ) from error
        # PyTorch raises many kinds of errors for files that are cut off or of another format.
        except Exception as error:
            raise UserError(
                f"{path} cannot be read as PyTorch weights ({reason_of(error)}): download it again"
            ) from error
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}: expected the state dict of a network")
    result, total = {}, 0
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            continue
        if not isinstance(name, str):
            raise UserError(f"{path} holds a tensor named {shorten(name)}: expected names of printable characters")
        where = f"{path}: the tensor {shorten(name)}"
        with naming_file(where, "cannot be read", "save the state dict again, as .safetensors"):
            is_plain = value.layout == torch.strided and not (value.is_quantized or value.is_nested or value.is_meta)
            if not is_plain or value.is_complex():
                raise UserError(
                    f"{where} is sparse, quantized, nested, complex or without numbers: expected a plain tensor"
                )
            total += value.numel() * max(value.element_size(), 4 if value.is_floating_point() else 1)
            if total > max(ALWAYS_ALLOWED_BYTES, MAX_SHARING * num_bytes):
                raise UserError(
                    f"{where} and those before it claim {total} bytes, and the file has {num_bytes}: it is not a file of weights"
                )
            result[name] = (value.float() if value.is_floating_point() else value).numpy(force=True)
    return result


def _check_zip(file: io.BufferedIOBase, path: Path) -> None:
    """Raise UserError if a zip file of PyTorch is compressed, which it never is, or its list of parts contradicts itself."""
    file.seek(0)
    is_zip = file.read(2) == b"PK"
    if is_zip:
        try:
            StoredZip(file)
        except Exception as error:
            raise UserError(
                f"{path} cannot be read as PyTorch weights ({reason_of(error)}): download it again"
            ) from error
    file.seek(0)


def _asked_for(error: Exception) -> str:
    """Return the name of the function that a pickle asked for, which PyTorch's message mentions."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" (it asks for {found[1]})" if found else ""
