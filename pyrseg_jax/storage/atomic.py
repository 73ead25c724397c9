"""Atomic writes: a reader, or a restart after a crash, sees either the old content of a file or the new one, never a part."""

from pathlib import Path
from typing import TypeAlias

from etils import epath

from pyrseg_jax.storage.paths import is_remote

Buffer: TypeAlias = bytes | memoryview


def write_atomically(path: Path | epath.Path, text: str) -> None:
    """Write a text file (UTF-8) atomically."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path | epath.Path, content: Buffer) -> None:
    """Write a binary file atomically, by renaming a finished `NAME.partial` to `NAME`."""
    if is_remote(path):  # object stores write whole objects, so no partial file is needed
        path.write_bytes(bytes(content))
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)  # pyright: ignore[reportArgumentType]  # epath declares less than it takes
    partial.replace(path)
