"""Write files such that a reader, or a crash, sees either the old content or the new content, never a part."""

from pathlib import Path
from typing import TypeAlias

from etils import epath

from pyrseg_jax.storage.paths import is_bucket

Buffer: TypeAlias = bytes | memoryview


def write_atomically(path: Path | epath.Path, text: str) -> None:
    """Write a file such that a reader, or a crash, sees either the old one or the new one whole."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path | epath.Path, content: Buffer) -> None:
    """Write bytes as `write_atomically` does text."""
    if is_bucket(path):  # where an object appears whole or not at all
        path.write_bytes(bytes(content))
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
