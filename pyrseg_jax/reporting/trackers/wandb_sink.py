"""Weights & Biases as a tracker. Its own settings apply: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE, `wandb login` and others."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb  # pyright: ignore[reportMissingImports]  # optional

from pyrseg_jax.reporting.trackers.contract import About


class WandbSink:
    """Writes to one run of Weights & Biases."""

    def __init__(self):
        self._run: Any = None

    def open(self, about: About, run: str | None) -> str:
        """Start or continue the run, whose id is that of our run."""
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "pyrseg"),
            id=about.id,
            name=about.name,
            resume="allow",
            config=about.config | {"classes": list(about.classes)},
        )
        # Steps of a part that was interrupted come twice, which its own counter of steps does not allow.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        return about.id

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers."""
        self._run.log({"step": step, **values})

    def draw(self, name: str, path: Path, step: int) -> None:
        """Write a picture."""
        self._run.log({"step": step, name: wandb.Image(str(path))})

    def close(self, is_finished: bool) -> None:
        """End the run."""
        self._run.finish(0 if is_finished else 1)


def make_sink() -> WandbSink:
    """Return the sink."""
    return WandbSink()
