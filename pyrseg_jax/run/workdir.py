"""The folder of a run: what it was started with, so that it can be continued, evaluated and used without asking again."""

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

from etils import epath

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import keys
from pyrseg_jax.run.config import Config
from pyrseg_jax.storage import lock
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.storage.paths import is_remote

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy", "pillow")


RANDOM = "random"  # the initialisation of a run that started from no weights


class Workdir:
    """Paths and records of one run, on a disk or in a bucket (gs://…)."""

    def __init__(self, path: str):
        self.path = epath.Path(path).expanduser()
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self._config = self.path / "config.json"
        self._classes = self.path / "classes.json"
        self._initialisation = self.path / "initialisation.json"

    def figures_of(self, split: str, step: int) -> epath.Path:
        """Return the folder for figures about an evaluation."""
        return self.figures / f"{split}-{step}"

    def lock(self) -> contextlib.AbstractContextManager:
        """Keep other trainings out of this folder, which is made if need be; in a bucket nothing can.

        Raises:
          UserError: saying which process trains here.
        """
        if is_remote(self.path):
            return contextlib.nullcontext()
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            return lock.locked(Path(self.path) / "lock")

    def stalls(self, process_index: int) -> Path | None:
        """Return the file for reports of stalls of one process; None where only a terminal can have them."""
        if is_remote(self.path):
            return None
        return Path(self.path) / ("stalls.log" if process_index == 0 else f"stalls-{process_index}.log")

    def has_checkpoint(self) -> bool:
        """Tell whether there is a checkpoint to continue from."""
        return self.checkpoints.is_dir() and any(entry.name.isdigit() for entry in self.checkpoints.iterdir())

    def has_run(self) -> bool:
        """Tell whether a run was started here."""
        return self._config.is_file()

    def read_config(self) -> Config:
        """Read the configuration of the run that is here.

        Raises:
          UserError: if there is none, or it is damaged.
        """
        if not self.has_run():
            raise UserError(
                f"{self.path} holds no run (there is no config.json): train first, or name its folder with --workdir"
            )
        try:
            return config_lib.from_json(self._config.read_text())
        except (json.JSONDecodeError, UserError) as error:
            raise UserError(f"{self._config}: {error}; restore the file, or use another --workdir") from error

    def check_config(self, config: Config) -> None:
        """Raise UserError, naming the keys, if the run that is here was started with other values."""
        if not self.has_run():
            return
        found = keys.differences(self.read_config(), config)
        if found:
            raise UserError(
                f"{self.path} holds a run of another config: {'; '.join(found)}; use another --workdir, or the values of "
                f"{self._config}"
            )

    def open_for_training(self, config: Config, label_space: LabelSpace) -> None:
        """Create the folder, or check that its run is this one; write `config.json`, `classes.json`, `environment.json`.

        Raises:
          UserError: if it holds a run of another config or other classes, or cannot be written.
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

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror or error}): choose another folder with --workdir"
            ) from error

    def read_label_space(self) -> LabelSpace:
        """Read the classes that the run was trained on; raises UserError if the file is missing or damaged."""
        try:
            return LabelSpace.from_json(json.loads(self._classes.read_text()))
        except (OSError, json.JSONDecodeError, TypeError) as error:
            raise UserError(f"{self._classes} cannot be read ({error}): restore it, or train again") from error

    def write_initialization(self, origin: str | dict) -> None:
        """Keep what the run starts from, for every result of it."""
        write_atomically(self._initialisation, json.dumps(origin, indent=1) + "\n")

    def read_initialization(self) -> str | dict:
        """Return what the run started from: `"random"`, or `file`, `sha256` and `source` of the weights."""
        try:
            return json.loads(self._initialisation.read_text())
        except FileNotFoundError:  # as in runs older than this file
            return RANDOM
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{self._initialisation} cannot be read ({error}): restore it") from error

    def drop_evaluations_after(self, step: int) -> None:
        """Remove results of later steps, which are going to be taken again and perhaps evaluated at others."""
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
        # A list of numbers on one line each: a matrix of 150 classes would be 22,500 lines.
        text = re.sub(r"\[[^][{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text)
        write_atomically(path, text + "\n")
        return path


def environment() -> dict:
    """Describe what computes here: versions, devices, the commit of this package's checkout if it is one."""
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
