"""The files below a folder of checkpoints, and what Orbax says of them in its errors."""

import os
import re
import stat

from etils import epath

from pyrseg_jax.errors import UserError, first_line
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.storage.regular_file import kind_of

UNFINISHED = ".orbax-checkpoint-tmp"  # in the names of folders that Orbax is still writing to


def remove_unfinished(directory: epath.Path) -> list[str]:
    """Remove the checkpoints that a killed run was writing, and return their names; Orbax itself removes only some of them.

    Call this only while no other process trains here.
    """
    found = sorted((entry for entry in directory.iterdir() if UNFINISHED in entry.name), key=lambda entry: entry.name)
    for entry in found:
        entry.rmtree(missing_ok=True) if entry.is_dir() else entry.unlink()
    return [entry.name for entry in found]


def check_kinds(directory: epath.Path) -> None:
    """Raise UserError if a folder of checkpoints holds a named pipe or a device: Orbax would wait there forever."""
    for place, _, names in () if is_remote(directory) else os.walk(directory):
        for path in (os.path.join(place, name) for name in names):
            try:
                mode = os.stat(path).st_mode
            except OSError:  # another process has removed it, or it is a link that leads nowhere
                continue
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise UserError(f"{path} is {kind_of(mode)}: expected a file of a checkpoint; remove it")


def short_reason(error: Exception) -> str:
    """Shorten a message of Orbax; TensorStore names all paths before the system's reason: "No space left on device"."""
    text = str(error)
    shapes = re.search(r"Requested shape: (\([\d, ]*\)) is not compatible with the stored shape: (\([\d, ]*\))", text)
    if shapes:
        return f"an array has the shape {shapes[2]}, and that of the network has {shapes[1]}"
    said = re.search(r"([^:]+) \[os_error_code", text)
    return said[1].strip() if said else first_line(error).partition(". See full TensorStore details")[0][:200]
