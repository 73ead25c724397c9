"""MLflow as a tracker. Its own settings apply: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and others."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

import mlflow  # pyright: ignore[reportMissingImports]  # optional
from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]
from PIL import Image

from pyrseg_jax.reporting.trackers.contract import About

_MAX_PARAMETERS, _MAX_METRICS, _MAX_LENGTH = 100, 1000, 500  # of one request, and of a value
_FOREIGN = re.compile(r"[^\w\-. /]", re.ASCII)  # characters that MLflow has in no name
_TAG = "pyrseg.run"


class MlflowSink:
    """Writes to one run of MLflow."""

    def __init__(self):
        self._client, self._run = mlflow.MlflowClient(), ""

    def open(self, about: About, run: str | None) -> str:
        """Create a run in the experiment `pyrseg`, or continue one."""
        if run is not None:
            self._client.update_run(run, status="RUNNING")
            self._run = run
            return run
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "pyrseg")
        experiment = self._client.get_experiment_by_name(name)
        place = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        created = self._client.create_run(place, run_name=about.name, tags={_TAG: about.id})
        self._run = created.info.run_id
        parameters = [Param(key, str(value)[:_MAX_LENGTH]) for key, value in about.config.items()]
        parameters.append(Param("classes", ", ".join(about.classes)[:_MAX_LENGTH]))
        for first in range(0, len(parameters), _MAX_PARAMETERS):
            self._client.log_batch(self._run, params=parameters[first : first + _MAX_PARAMETERS])
        return self._run

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers."""
        now = int(1000 * time.time())
        metrics = [Metric(_FOREIGN.sub("_", name), value, now, step) for name, value in values.items()]
        for first in range(0, len(metrics), _MAX_METRICS):
            self._client.log_batch(self._run, metrics=metrics[first : first + _MAX_METRICS])

    def draw(self, name: str, path: Path, step: int) -> None:
        """Write a picture."""
        with Image.open(path) as picture:
            self._client.log_image(self._run, picture, key=_FOREIGN.sub("_", name), step=step)

    def close(self, is_finished: bool) -> None:
        """End the run."""
        self._client.set_terminated(self._run, "FINISHED" if is_finished else "KILLED")


def make_sink() -> MlflowSink:
    """Return the sink."""
    return MlflowSink()
