"""The folder of a run (workdir): its paths, and the records that let other commands continue, evaluate and use the run."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from etils import epath
from pydantic import Discriminator, RootModel, Tag

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import keys
from pyrseg_jax.run.config import Config
from pyrseg_jax.storage import documents, lock
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.storage.paths import is_remote

# Packages whose versions are recorded in environment.json.
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy", "pillow")
RANDOM = "random"  # the recorded initialization of a run that did not start from given weights


class GivenWeights(documents.Document):
    """Weights that a run started from: where they were, their SHA-256, and which publisher or run they are of."""

    file: str
    sha256: str
    source: str


def _kind_of_initialization(content: Any) -> str:
    return "weights" if isinstance(content, dict | GivenWeights) else "random"


class Initialization(RootModel):
    """The content of initialisation.json: "random", or an object that describes the weights."""

    # Told apart by their types, so that an error speaks of the form that the file has.
    root: Annotated[
        Annotated[Literal["random"], Tag("random")] | Annotated[GivenWeights, Tag("weights")],
        Discriminator(_kind_of_initialization),
    ]


class Workdir:
    """Paths and records of one run, on a local disk or in remote storage (gs://…).

    Args:
      path: path of the folder, which need not exist yet.
    """

    def __init__(self, path: str):
        self.path = epath.Path(path).expanduser()
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self._config = self.path / "config.json"
        self._classes = self.path / "classes.json"
        self._initialization = self.path / "initialisation.json"

    def figures_of(self, split: str, step: int) -> epath.Path:
        """Return the folder for the figures of an evaluation."""
        return self.figures / f"{split}-{step}"

    def lock(self) -> contextlib.AbstractContextManager:
        """Return a context that keeps other trainings out of this folder. Remote storage cannot be locked.

        The folder is created if necessary.

        Raises:
          UserError: if another process trains here; the message names it.
        """
        if is_remote(self.path):
            return contextlib.nullcontext()
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            return lock.locked(Path(self.path) / "lock")

    def stalls(self, process_index: int) -> Path | None:
        """Return the file for the stall reports of a process, or None in remote storage, which cannot append to files."""
        if is_remote(self.path):
            return None
        return Path(self.path) / ("stalls.log" if process_index == 0 else f"stalls-{process_index}.log")

    def has_checkpoint(self) -> bool:
        """Return whether there is a checkpoint to resume from."""
        return self.checkpoints.is_dir() and any(entry.name.isdigit() for entry in self.checkpoints.iterdir())

    def has_run(self) -> bool:
        """Return whether a run was started here."""
        return self._config.is_file()

    def read_config(self) -> Config:
        """Read the configuration of the run in this folder.

        Raises:
          UserError: if there is no run, or the file is damaged.
        """
        if not self.has_run():
            raise UserError(
                f"{self.path} holds no run (there is no config.json): train first, or give the folder of a run with --workdir"
            )
        try:
            return config_lib.from_json(self._config.read_bytes(), str(self._config))
        except OSError as error:
            raise UserError(f"{self._config} cannot be read ({error.strerror or error}): restore it") from error

    def check_config(self, config: Config) -> None:
        """Raise UserError, naming the keys, if the run in this folder was started with other values."""
        if not self.has_run():
            return
        found = keys.differences(self.read_config(), config)
        if found:
            raise UserError(
                f"{self.path} holds a run of another config: {'; '.join(found)}; use another --workdir, or the "
                f"values in {self._config}"
            )

    def open_for_training(self, config: Config, label_space: LabelSpace, origin: str | dict | None = None) -> None:
        """Create the folder and its records, or check that the run in it is the given one.

        Writes `config.json`, `classes.json`, `environment.json` and, for a new run, `initialisation.json`.

        Args:
          config: the run's configuration.
          label_space: the classes of the data set.
          origin: the weights that a new run starts from, see `read_initialization`; None keeps the record of the run in the
        folder.

        Raises:
          UserError: if the folder holds a run with another config or other classes, or cannot be written.
        """
        self.check_config(config)
        if self._classes.is_file() and (found := self.read_label_space()) != label_space:
            raise UserError(
                f"{self.path} holds a run with other classes ({found.num_classes}: {', '.join(found.names[:4])}, …) than the "
                f"data set has now ({label_space.num_classes}: {', '.join(label_space.names[:4])}, …); use another --workdir"
            )
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self._config, config_lib.to_json(config))
            write_atomically(self._classes, json.dumps(dataclasses.asdict(label_space), indent=1) + "\n")
            write_atomically(self.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
            if origin is not None:
                write_atomically(self._initialization, json.dumps(origin, indent=1) + "\n")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror or error}): choose another folder with --workdir"
            ) from error

    def read_label_space(self) -> LabelSpace:
        """Read the classes that the run is trained on; raises UserError if the file is missing or damaged."""
        return documents.read_json(self._classes, LabelSpace, "restore it, or train again")

    def read_initialization(self) -> str | dict:
        """Return what the run started from: `"random"`, or `file`, `sha256` and `source` of the weights."""
        if not self._initialization.exists():  # the run is older than this file
            return RANDOM
        origin = documents.read_json(self._initialization, Initialization).root
        return origin if isinstance(origin, str) else origin.model_dump()

    def drop_evaluations_after(self, step: int) -> None:
        """Remove evaluations of steps after `step`: these steps will be trained again, and perhaps evaluated at other steps."""
        folder = self.path / "evaluation"
        for file in folder.iterdir() if folder.is_dir() else ():
            number = file.stem.rpartition("-")[2]
            if file.suffix == ".json" and number.isdigit() and int(number) > step:
                file.unlink()

    def write_evaluation(self, split: str, step: int, result: dict) -> epath.Path:
        """Write `evaluation/SPLIT-STEP.json` and return its path."""
        path = self.path / "evaluation" / f"{split}-{step}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2)
        # Put each list of numbers on one line: a confusion matrix of 150 classes would otherwise take 22,500 lines.
        text = re.sub(r"\[[^][{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text)
        write_atomically(path, text + "\n")
        return path


def environment() -> dict:
    """Describe this machine and its software: versions, devices, and the commit if the package runs from a checkout."""
    root = Path(__file__).parents[2]
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "devices": mesh_lib.describe_devices(),
        "git_commit": commit,
        "command": sys.argv,
    }
