"""The files below a folder of checkpoints, and what Orbax says of them in its errors."""

import contextlib
import itertools
import os
import re
import stat
from collections.abc import Iterator
from typing import Annotated, Any

from etils import epath
from pydantic import ConfigDict, Field

from pyrseg_jax.errors import UserError, first_line, naming_file
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.paths import is_remote, is_there
from pyrseg_jax.storage.regular_file import kind_of

METADATA = "_CHECKPOINT_METADATA"  # Orbax's own file in each checkpoint
UNFINISHED = ".orbax-checkpoint-tmp"  # in the names of folders that Orbax is still writing to

Nanoseconds = Annotated[int, Field(ge=0, lt=2**63)]


class Metadata(documents.Document):
    """What Orbax notes of a checkpoint, as far as it reads this back when it lists a folder."""

    model_config = ConfigDict(frozen=True, extra="allow")

    item_handlers: dict[str, Any] | str | None = None
    metrics: dict[str, Any] | None = None
    performance_metrics: dict[str, Any] | None = None
    init_timestamp_nsecs: Nanoseconds | None = None
    commit_timestamp_nsecs: Nanoseconds | None = None
    custom_metadata: dict[str, Any] | None = None


def remove_unfinished(directory: epath.Path) -> list[str]:
    """Remove the checkpoints that a killed run was writing, and return their names; Orbax itself removes only some of them.

    Call this only while no other process trains here.
    """
    found = sorted((entry for entry in directory.iterdir() if UNFINISHED in entry.name), key=lambda entry: entry.name)
    for entry in found:
        entry.rmtree(missing_ok=True) if entry.is_dir() else entry.unlink()
    return [entry.name for entry in found]


def free_name(path: epath.Path) -> epath.Path:
    """Return the path, or where something has this name already, the first free one of PATH-2, PATH-3, …"""
    names = itertools.chain([path.name], (f"{path.name}-{number}" for number in itertools.count(2)))
    return next(found for name in names if not is_there(found := path.parent / name))


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


@contextlib.contextmanager
def naming_metadata(directory: epath.Path) -> Iterator[None]:
    """Turn an error of Orbax that lists a folder of checkpoints into a UserError that names the file at fault.

    Orbax passes over metadata that is not JSON, but fails in many ways if it is JSON of another shape.
    """
    advice = "restore it, or move the folder of this checkpoint away"
    with naming_file(str(directory), "cannot be listed", "restore its files"):
        try:
            yield
        except Exception:
            for path in sorted(directory.glob(f"*/{METADATA}")):
                documents.read_json(path, Metadata, advice)
            raise


def short_reason(error: Exception) -> str:
    """Shorten a message of Orbax; TensorStore names all paths before the system's reason: "No space left on device"."""
    text = str(error)
    shapes = re.search(r"Requested shape: (\([\d, ]*\)) is not compatible with the stored shape: (\([\d, ]*\))", text)
    if shapes:
        return f"an array has the shape {shapes[2]}, and that of the network has {shapes[1]}"
    said = re.search(r"([^:]+) \[os_error_code", text)
    return said[1].strip() if said else first_line(error).partition(". See full TensorStore details")[0][:200]
