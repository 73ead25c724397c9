"""The folder of a run (workdir): its paths, and the records that let other commands continue, evaluate and use the run."""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from etils import epath
from pydantic import ConfigDict, Discriminator, RootModel, Tag

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import image_counts, keys
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.environment import environment
from pyrseg_jax.run.packaged_models import ABOUT_MODEL
from pyrseg_jax.run.results import Results
from pyrseg_jax.storage import documents, lock
from pyrseg_jax.storage.atomic import remove_leftovers, try_to_write, write_atomically
from pyrseg_jax.storage.paths import is_remote, is_there, storage_path

log = logging.getLogger(__name__)

CLASS_WEIGHTS = "class_weights.json"  # name of the file of `run/class_weights.py`
IMAGES = "images.json"  # name of the file of `run/image_space.py`
CALIBRATION = "calibration.json"  # name of the file of `run/calibration.py`
# The files of a run, whose partial files had these names in earlier versions.
RECORDS = (
    "config.json", "classes.json", "environment.json", "initialisation.json", "metrics.jsonl", "scores.json", CLASS_WEIGHTS, IMAGES,
    CALIBRATION,
)  # fmt: skip
RANDOM = "random"  # the recorded initialization of a run that did not start from given weights


class GivenWeights(documents.Document):
    """Weights that a run started from: where they were, their SHA-256, and which publisher or run they are of.

    Files of the Hugging Face hub have a commit, too.
    """

    file: str
    sha256: str
    source: str
    commit: str | None = None


class Environment(documents.Document):
    """The key of environment.json that the package reads."""

    model_config = ConfigDict(frozen=True, extra="allow")

    git_commit: str | None = None


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
        self.path = storage_path(path)
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self.results = Results(self.path / "evaluation")
        self.image_counts = self.path / image_counts.FOLDER
        self._config = self.path / "config.json"
        self._classes = self.path / "classes.json"
        self._initialization = self.path / "initialisation.json"

    def figures_of(self, result: epath.Path) -> epath.Path:
        """Return the folder for the figures of an evaluation, given the path of its result."""
        return self.figures / result.stem

    def check_writable(self, *, for_training: bool) -> None:
        """Raise UserError if a command could not write here; nothing is created. Call this before hours of computing.

        Args:
          for_training: whether to check all folders of the run, or only those of evaluations.
        """
        if is_remote(self.path):
            return
        folders = [self.results.folder, self.image_counts, self.figures]
        folders += [self.path, self.checkpoints, self.path / "tensorboard"] if for_training else []
        for folder in folders:
            while not is_there(folder):
                folder = folder.parent
            try:
                try_to_write(folder)
            except OSError as error:
                raise _unwritable(folder, error) from error

    def check_present(self) -> None:
        """Raise UserError if the folder was removed; what is written must not bring half of it back."""
        if not is_remote(self.path) and not self.path.is_dir():
            raise UserError(
                f"{self.path} was removed while a command was writing to it: nothing more is written; start the command again"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other trainings out of this folder for the duration of the context. Remote storage cannot be locked.

        The folder is created if necessary, and partial files that a killed training left in it are removed.

        Raises:
          UserError: if another process trains here; the message names it. Also if the folder cannot be written.
        """
        with contextlib.ExitStack() as held:
            if not is_remote(self.path):
                with self._writing():
                    self.path.mkdir(parents=True, exist_ok=True)
                    held.enter_context(lock.locked(Path(self.path) / "lock"))
                self._remove_leftovers()
            yield

    def _remove_leftovers(self) -> None:
        for folder in (self.path, self.checkpoints, self.figures, self.results.folder, self.image_counts):
            removed = remove_leftovers(folder, RECORDS)
            if removed:
                log.info("%s: removed what an interrupted command left there: %s", folder, ", ".join(removed))

    def stalls(self, process_index: int) -> Path | None:
        """Return the file for the stall reports of a process, or None in remote storage, which cannot append to files."""
        if is_remote(self.path):
            return None
        return Path(self.path) / ("stalls.log" if process_index == 0 else f"stalls-{process_index}.log")

    def has_checkpoint(self) -> bool:
        """Return whether there is a checkpoint to resume from."""
        return self.checkpoints.is_dir() and any(entry.name.isdecimal() for entry in self.checkpoints.iterdir())

    def has_run(self) -> bool:
        """Return whether a run was started here."""
        return is_there(self._config)

    def has_model(self) -> bool:
        """Return whether this is a model folder: the network of a run that was trained elsewhere."""
        return is_there(self.path / ABOUT_MODEL)

    def has_classes(self) -> bool:
        """Return whether the classes of a run are recorded here."""
        return is_there(self._classes)

    def read_config(self) -> Config:
        """Read the configuration of the run in this folder.

        Raises:
          UserError: if there is no run, or the file is damaged.
        """
        if not self.has_run():
            raise UserError(
                f"{self.path} holds no run (there is no config.json): train first, or give the folder of a run with --workdir"
            )
        advice = "restore the file, or use another --workdir"
        return config_lib.from_json(documents.read_document(self._config, advice), str(self._config))

    def check_config(self, config: Config) -> None:
        """Raise UserError if a training of this config must not write here.

        Either the run in this folder was started with other values, which are named; or there is no run, but there are files that a
        run would replace.
        """
        if not self.has_run():
            self._check_free()
            return
        found = keys.differences(self.read_config(), config)
        if found:
            raise UserError(
                f"{self.path} holds a run of another config: {'; '.join(found)}; use another --workdir, or the "
                f"values in {self._config}"
            )

    def _check_free(self) -> None:
        """Raise UserError if files of a run are here without its configuration, or files of the user have such names."""
        files = [path for name in RECORDS if is_there(path := self.path / name)]
        folders = (self.checkpoints, self.figures, self.results.folder, self.image_counts, self.path / "tensorboard")
        found = files + [folder for folder in folders if folder.is_dir() and any(folder.iterdir())]
        if found:
            raise UserError(
                f"{self.path} holds {', '.join(path.name for path in found)}, but no config.json: a training would replace files "
                "there; use another --workdir, or restore config.json if this was a run"
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
        if self.has_model():
            raise UserError(
                f"{self.path} is a model folder, which no training changes: use another --workdir, and start from the model with "
                f"--config.model.init={self.path}"
            )
        self.check_config(config)
        if is_there(self._classes):
            self._check_classes(config, label_space)
        if origin is None:
            self.read_initialization()  # every result repeats it, so a damaged file must not be found after hours
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self._config, config_lib.to_json(config))
            write_atomically(self._classes, json.dumps(label_space.to_json(), indent=1) + "\n")
            write_atomically(self.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
            if origin is not None:
                write_atomically(self._initialization, json.dumps(origin, indent=1) + "\n")

    def _check_classes(self, config: Config, label_space: LabelSpace) -> None:
        """Raise UserError if the run in this folder has other classes or, where the network reads it, another hierarchy."""
        found = self.read_label_space()
        if found != label_space:
            raise UserError(
                f"{self.path} holds a run with other classes than the data set has now: {_first_difference(found, label_space)}; "
                "use another --workdir"
            )
        if CONTEXTS[config.model.context].reads_hierarchy and found.hierarchy != label_space.hierarchy:
            raise UserError(
                f"{self.path} holds a run with another hierarchy of the classes than the data set has now: "
                f"{_first_other_place(found, label_space)}; use another --workdir, or restore the hierarchy"
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def read_label_space(self) -> LabelSpace:
        """Read the classes that the run is trained on; raises UserError if the file is missing or damaged."""
        return documents.read_json(self._classes, LabelSpace, "restore it, or train again")

    def read_git_commit(self) -> str | None:
        """Return the commit of the package that the run was last trained with; None if it is not known."""
        try:
            found = documents.read_json(self.path / "environment.json", Environment).git_commit
        except UserError:  # a model folder, or a damaged file: nothing depends on it
            return None
        return found

    def read_initialization(self) -> str | dict:
        """Return what the run started from: `"random"`, or `file`, `sha256`, `source` and `commit` of the weights."""
        if not is_there(self._initialization):  # the run is older than this file
            return RANDOM
        origin = documents.read_json(self._initialization, Initialization).root
        return origin if isinstance(origin, str) else origin.model_dump(exclude_none=True)


def _first_difference(before: LabelSpace, now: LabelSpace) -> str:
    """Describe the first difference of two label spaces."""
    if before.num_classes != now.num_classes:
        return f"{before.num_classes} ({', '.join(before.names[:4])}, …) → {now.num_classes} ({', '.join(now.names[:4])}, …)"
    for name, value, new_name, new_value in zip(before.names, before.file_ids, now.names, now.file_ids, strict=True):
        if (name, value) != (new_name, new_value):
            return f"{name} with the value {value} in label files → {new_name} with {new_value}"
    return "the value of void, the colors or the remapped values in label files differ"


def _first_other_place(before: LabelSpace, now: LabelSpace) -> str:
    """Describe the first class that the hierarchies of two label spaces put into other groups."""
    nowhere = ((),) * now.num_classes
    for name, groups, new_groups in zip(now.names, before.hierarchy or nowhere, now.hierarchy or nowhere, strict=True):
        if groups != new_groups:
            return f"{name} in {' > '.join(groups) or 'no group'} → {' > '.join(new_groups) or 'no group'}"
    return "one of them has no groups"


def _unwritable(folder: epath.Path, error: OSError) -> UserError:
    return UserError(
        f"{folder} cannot be written ({error.strerror or error}): make room or restore access, or choose another folder with "
        "--workdir"
    )
