"""What a tracker must do for a training, and what it is told about the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pyrseg_jax.storage import documents


class About(documents.Document):
    """What a tracker is told about a run: the content of `tracking/run.json`.

    id: of the run; a resumed run keeps it.
    name: of the run, that of its folder.
    config: the configuration, by full key.
    classes: names of the classes.
    """

    id: str
    name: str
    config: dict[str, Any]
    classes: tuple[str, ...]


class Sink(Protocol):
    """Where a tracker's process writes to. Any method may raise.

    The module of a tracker has a function `make_sink` without arguments, which returns one.
    """

    def open(self, about: About, run: str | None) -> str:
        """Start a run, or continue one; return the name that continues it.

        Args:
          about: the run.
          run: what an earlier call returned; None for a new run.
        """
        ...

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers by name."""
        ...

    def draw(self, name: str, path: Path, step: int) -> None:
        """Write a picture, a JPEG file."""
        ...

    def close(self, is_finished: bool) -> None:
        """End the run, which is finished or interrupted; deliver everything."""
        ...
