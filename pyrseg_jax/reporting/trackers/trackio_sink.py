"""trackio as a tracker. Its own settings apply: TRACKIO_PROJECT, TRACKIO_DIR and others."""

import os
from collections.abc import Mapping
from pathlib import Path

import trackio  # pyright: ignore[reportMissingImports]  # optional

from pyrseg_jax.reporting.trackers.contract import About


class TrackioSink:
    """Writes to one run of trackio, which its name tells from others."""

    def open(self, about: About, run: str | None) -> str:
        """Start or continue the run."""
        name = run or f"{about.name}-{about.id[:6]}"
        project = os.environ.get("TRACKIO_PROJECT", "pyrseg")
        trackio.init(project, name=name, resume="allow", config=about.config | {"classes": list(about.classes)})
        return name

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers."""
        trackio.log(dict(values), step=step)

    def draw(self, name: str, path: Path, step: int) -> None:
        """Write a picture."""
        trackio.log({name: trackio.Image(str(path))}, step=step)

    def close(self, is_finished: bool) -> None:
        """Deliver everything."""
        trackio.finish()


def make_sink() -> TrackioSink:
    """Return the sink."""
    return TrackioSink()
