"""Read weights in PyTorch's own formats without running code that they contain."""

import io
import logging
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from pyrseg_jax.errors import UserError, naming_file, reason_of
from pyrseg_jax.storage.documents import shorten
from pyrseg_jax.storage.regular_file import open_regular_file
from pyrseg_jax.storage.stored_zip import MAX_DIRECTORY_BYTES, StoredZip
from pyrseg_jax.storage.zip_directory import open_zip

log = logging.getLogger(__name__)

# Keys under which training programs keep the weights, the preferred first.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
MAX_WRAPPERS = 4  # how deep the weights may lie in dictionaries
# Packages whose objects training programs store beside the weights: settings, scores, histories. Objects of other packages end the
# reading. None is ever made: a placeholder that does nothing takes its place.
PASSED_OVER = (
    "argparse",
    "pathlib",
    "numpy",
    "datetime",
    "mmengine",
    "omegaconf",
    "lightning",
    "pytorch_lightning",
    "timm",
    "yacs",
)
MAX_PASSED_OVER = 64  # kinds of such objects in one file
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
                content = _load(torch, cast(IO[bytes], file))
        except pickle.UnpicklingError as error:
            asked_for = _asked_for(error)
            raise UserError(
                f"{path} was not read: it is damaged, or it holds objects other than weights, which could run code"
                f"{f' (it asks for {asked_for})' if asked_for else ''}; if you trust it, save its state dict alone, as .safetensors"
            ) from error
        # PyTorch raises many kinds of errors for files that are cut off or of another format.
        except Exception as error:
            raise UserError(
                f"{path} cannot be read as PyTorch weights ({reason_of(error)}): download it again"
            ) from error
    content = _unwrap(content, torch.Tensor, path)
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


class _PassedOver:
    """Stands for an object that is not read: it takes any arguments and any state, and keeps none of them."""

    def __new__(cls, *args: object, **kwargs: object) -> "_PassedOver":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def _load(torch: Any, file: IO[bytes]) -> Any:
    """Load a file with placeholders for the objects of `PASSED_OVER`; PyTorch refuses all others."""
    before = torch.serialization.get_safe_globals()
    try:
        for _ in range(MAX_PASSED_OVER):
            file.seek(0)
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                module, _, name = _asked_for(error).rpartition(".")
                if module.partition(".")[0] not in PASSED_OVER:
                    raise
                # PyTorch finds a class by its module and name.
                placeholder = type(name, (_PassedOver,), {"__module__": module})
                torch.serialization.add_safe_globals([placeholder])
        raise pickle.UnpicklingError(f"more than {MAX_PASSED_OVER} kinds of objects")
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _unwrap(content: Any, tensor: type, path: Path) -> Any:
    """Return the state dict inside of the dictionaries of a training program.

    Raises:
      UserError: naming the keys, if there are several of which none has a usual name.
    """

    def count(value: object) -> int:
        return sum(isinstance(array, tensor) for array in value.values()) if isinstance(value, Mapping) else 0

    def has_tensors(value: object, depth: int = MAX_WRAPPERS) -> bool:
        return count(value) > 0 or (
            depth > 0 and isinstance(value, Mapping) and any(has_tensors(inner, depth - 1) for inner in value.values())
        )

    for _ in range(MAX_WRAPPERS):
        if not isinstance(content, Mapping):
            break
        usual = [name for name in WRAPPERS if has_tensors(content.get(name))]
        others = [name for name, value in content.items() if name not in usual and count(value) > count(content)]
        if not usual and not others:
            break
        if not usual and len(others) > 1:
            raise UserError(
                f"{path} holds several networks ({', '.join(map(shorten, others))}): save the state dict of one alone"
            )
        chosen, *left = usual + others
        if left:
            log.info("%s: taking %s, not %s", path, shorten(chosen), ", ".join(map(shorten, left)))
        content = content[chosen]
    return content


def _check_zip(file: io.BufferedIOBase, path: Path) -> None:
    """Raise UserError if a zip file of PyTorch is compressed, which it never is, or its list of parts contradicts itself."""
    file.seek(0)
    is_zip = file.read(2) == b"PK"
    if is_zip:
        names: list[str] = []
        try:
            names = [part.orig_filename for part in open_zip(file, MAX_DIRECTORY_BYTES).infolist()]
            StoredZip(file)
        except Exception as error:
            if any("/code/__torch__" in name for name in names):  # such a file is compressed, too
                raise UserError(
                    f"{path} is a TorchScript program, which is not run: save its weights with "
                    "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
                ) from error
            raise UserError(
                f"{path} cannot be read as PyTorch weights ({reason_of(error)}): download it again"
            ) from error
    file.seek(0)


def _asked_for(error: Exception) -> str:
    """Return the name of the function that a pickle asked for, which PyTorch's message mentions; empty if it mentions none."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found[1] if found else ""
