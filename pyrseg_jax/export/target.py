"""Where an exported model goes: checked before anything is computed, so that no file of the user is lost."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.export.expiry import Readers
from pyrseg_jax.export.format import SUFFIX, About, read_about
from pyrseg_jax.export.onnx.metadata import LITERT, read_litert_metadata, read_metadata
from pyrseg_jax.export.onnx.metadata import SUFFIX as ONNX
from pyrseg_jax.export.read import MAX_BYTES
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.keys import keys_of, value_of
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.atomic import try_to_write
from pyrseg_jax.storage.regular_file import kind_of, open_regular_file
from pyrseg_jax.storage.stored_zip import StoredZip


def run_identity(values: Mapping) -> str:
    """Return a short text that is the same only for equal values; a file with it can be replaced by the same command.

    Args:
      values: whatever tells one run from another, as JSON can hold it.
    """
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def identity_of_run(config: Config, workdir: Workdir) -> str:
    """Tell a run from others by what a training of it cannot change: its other keys, its classes and its first weights."""
    keys = {name: value_of(config, name) for name, about in keys_of(Config).items() if not about.is_resumable}
    return run_identity(
        {"config": keys, "classes": workdir.read_label_space().names, "start": workdir.read_initialization()}
    )


def check_target(path: Path, run: str, is_overwriting: bool, suffix: str = SUFFIX) -> None:
    """Check that an exported model can be written, and that this replaces nothing but an export of the same run.

    The file's folder is created if necessary.

    Args:
      path: path of the file.
      run: identity of the run, see `run_identity`.
      is_overwriting: whether any other regular file may be replaced.
      suffix: end of the name, which says what kind of file it is.

    Raises:
      UserError: if the name does not end in the suffix, the file exists and must not be replaced, or the folder cannot be written.
    """
    if path.suffix != suffix:
        other = "; add --format=onnx to write an ONNX file" if path.suffix == ONNX else ""
        raise UserError(f"--output={path}: an exported model is a file whose name ends in {suffix}{other}")
    try:
        # The link would be replaced, not the file that it leads to: neither is what a user expects.
        if path.is_symlink():
            raise UserError(f"{path} is a link: name the file itself, or remove the link")
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is {kind_of(path.stat().st_mode)}: name a file; its name ends in {suffix}")
        if path.exists() and not is_overwriting and not _is_export_of(path, run):
            raise UserError(
                f"{path} exists, and is not an earlier export of this run: name another file, or add --overwrite to "
                "replace it"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.stat(path.with_name(f"{path.name}.12345678.partial"))  # a name that is too long is an error here, too
        try_to_write(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return the error for an exported model that cannot be written."""
    return UserError(f"{path} cannot be written ({error.strerror or error}): name another file with --output")


def _is_export_of(path: Path, run: str) -> bool:
    try:
        if path.suffix in (ONNX, LITERT):
            read = read_metadata if path.suffix == ONNX else read_litert_metadata
            return read(path).get("run") == run
        return _read_about(path).run == run
    except Exception:  # a foreign or damaged file fails in many ways: it is not an export
        return False


def run_of_export(path: Path) -> str:
    """Return the identity of the run that an exported file is of; "" if the file does not say it.

    Raises:
      UserError: if it is not an exported file.
    """
    return _read_about(path).run or ""


def read_readers(path: Path) -> Readers | None:
    """Return which versions of JAX read an exported file; None if it does not say it."""
    return _read_about(path).readers


def _read_about(path: Path) -> About:
    problem = "is not an exported model, or it is damaged"
    with naming_file(str(path), problem, "check the path"), open_regular_file(path, MAX_BYTES) as file:
        return read_about(StoredZip(file), path)
