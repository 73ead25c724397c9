"""The folder of `--output` for commands that write a few files of fixed names."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.atomic import remove_leftovers, write_bytes_atomically
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.storage.regular_file import obstacle


def check_output_folder(output: str, names: Iterable[str], overwrite: bool, what: str) -> Path:
    """Return the output folder; raise UserError if a file there would be replaced without permission.

    Args:
      output: the value of --output.
      names: the files that will be written.
      overwrite: whether files of these names may be replaced.
      what: what they hold, for messages: "comparison".
    """
    if not output:
        raise UserError("--output=: expected a path")
    if is_remote(output):
        raise UserError(f"--output={output} is in remote storage: name a folder on a local disk")
    folder = Path(output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output={output} is not a folder: name another")
    for name in names:
        path = folder / name
        found = obstacle(path) if folder.is_dir() else None
        if found:
            raise UserError(f"{path} is {found}, which is not replaced: name another folder with --output")
        if path.exists() and not overwrite:
            raise UserError(
                f"{path} exists: name another folder with --output, or give --overwrite to replace the {what} there"
            )
    return folder


def write_output_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files by name, each whole or not at all; raises UserError if they cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        for name, content in contents.items():
            write_bytes_atomically(folder / name, content)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): make room, or name another folder with --output"
        ) from error
