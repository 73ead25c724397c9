"""Write a model folder, which `run/model_folder.py` describes and reads."""

import dataclasses
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict

import pyrseg_jax
from pyrseg_jax.data.image_space import ImageSpace, to_values
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError
from pyrseg_jax.export.card import describe_model
from pyrseg_jax.export.format import problem_of_weights
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run.calibration import Calibration, read_calibration
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.image_space import known_image_space
from pyrseg_jax.run.model_folder import CARD, WEIGHTS, AboutModel
from pyrseg_jax.run.networks import make_model
from pyrseg_jax.run.packaged_models import ABOUT_MODEL
from pyrseg_jax.run.restore import Trained, restore
from pyrseg_jax.run.workdir import CALIBRATION, IMAGES, Workdir
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import try_to_write, write_atomically, write_bytes_atomically
from pyrseg_jax.storage.hub import is_address
from pyrseg_jax.storage.paths import is_there

log = logging.getLogger(__name__)


def check_folder(target: Path, run: str, is_overwriting: bool) -> None:
    """Check that a model folder can be written, and that this replaces nothing but an export of the same run.

    The folder is created if necessary.

    Args:
      target: path of the folder.
      run: identity of the run, see `target.run_identity`.
      is_overwriting: whether another model folder may be replaced. A folder with other files never is.

    Raises:
      UserError: if the folder exists and must not be replaced, or cannot be written.
    """
    try:
        if is_there(target) and (target.is_symlink() or not target.is_dir()):
            raise UserError(f"--output={target} exists and is not a folder: name another folder")
        if target.is_dir() and any(target.iterdir()):
            if not is_there(target / ABOUT_MODEL):
                raise UserError(f"--output={target} holds other files than a model: name a new or empty folder")
            if not is_overwriting and _run_of(target) != run:
                raise UserError(
                    f"--output={target} is not an earlier export of this run: name another folder, or add --overwrite to replace it"
                )
        target.mkdir(parents=True, exist_ok=True)
        try_to_write(target)
    except OSError as error:
        raise UserError(
            f"--output={target} cannot be written ({error.strerror or error}): name another folder"
        ) from error


def _run_of(target: Path) -> str | None:
    try:
        return documents.read_json(target / ABOUT_MODEL, AboutModel).run
    except UserError:  # a damaged folder is not known to be of this run
        return None


class Written(NamedTuple):
    """A model folder that was written: the checkpoint in it, its network, and the seconds that writing took."""

    trained: Trained
    model: Segmenter
    seconds: float


def write_folder_of_run(
    target: Path, config: Config, workdir: Workdir, run: str, step: int | None, is_half: bool, place: str | None = None
) -> Written:
    """Restore a checkpoint onto the first device and write its model folder.

    Args:
      step: of the checkpoint; by default the newest.
      target, config, workdir, run, is_half, place: see `write_folder`.

    Raises:
      UserError: if there is no such checkpoint, it cannot be exported, or the folder cannot be written.
    """
    spaces = workdir.read_label_space(), known_image_space(config, workdir)
    model = make_model(config, spaces[0])
    trained = restore(config, model, workdir, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), step)
    log.info("exporting step %d", trained.step)
    calibration = read_calibration(config, workdir, trained, model.num_predicted_levels)
    start = time.perf_counter()
    try:
        write_folder(target, config, workdir, trained, spaces, run, is_half, calibration, place)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror or error}): name another folder with --output"
        ) from error
    return Written(trained, model, time.perf_counter() - start)


def write_folder(
    target: Path,
    config: Config,
    workdir: Workdir,
    trained: Trained,
    spaces: tuple[LabelSpace, ImageSpace],
    run: str,
    is_half: bool,
    calibration: Calibration | None,
    place: str | None = None,
) -> None:
    """Write a model folder file by file; `model.json` is removed first and written last, so that no mixture is taken for a model.

    A model card that is there already stays as it is: its author may have written in it.

    Args:
      target: the folder, see `check_folder`.
      config: the run's configuration.
      workdir: the run's folder.
      trained: its variables.
      spaces: the classes, and what the values of images mean.
      run: identity of the run.
      is_half: whether kernels are stored as float16. All other arrays, which are few and small, stay in float32.
      calibration: of this checkpoint, if there is one.
      place: the address under which the model can be loaded, for the card; None: the path of the folder.

    Raises:
      UserError: if a weight is not a number, or too large for float16.
      OSError: if a file cannot be written.
    """
    files = _files_of(config, workdir, trained, spaces, is_half)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    about = AboutModel(
        format=1, step=trained.step, run=run, pyrseg_jax=getattr(pyrseg_jax, "__version__", ""), sha256=digests
    )
    for name in (ABOUT_MODEL, CALIBRATION, *({IMAGES} - files.keys())):
        (target / name).unlink(missing_ok=True)
    for name, content in files.items():
        write_bytes_atomically(target / name, content)
    if calibration is not None:  # it holds for these weights, which have another digest in this form
        found = calibration.model_copy(update={"weights": digests[WEIGHTS][:16]})
        write_atomically(target / CALIBRATION, json.dumps(found.model_dump(), indent=1) + "\n")
    if not is_there(target / CARD):
        num_parameters = sum(x.size for x in jax.tree.leaves(trained.variables["params"]))
        text = describe_model(target.name, config, workdir, spaces[0], trained.step, num_parameters, is_half, place)
        write_atomically(target / CARD, text)
    write_atomically(target / ABOUT_MODEL, json.dumps(about.model_dump(), indent=1) + "\n")


def _files_of(
    config: Config, workdir: Workdir, trained: Trained, spaces: tuple[LabelSpace, ImageSpace], is_half: bool
) -> dict[str, bytes]:
    """Return the contents of the files that must stay unchanged, by name; arguments as for `write_folder`."""
    label_space, image_space = spaces
    weights = {"/".join(at): np.asarray(x) for at, x in flatten_dict(jax.device_get(trained.variables)).items()}
    problem = problem_of_weights(weights)
    if problem:
        raise UserError(f"this checkpoint cannot be exported: {problem}; choose an earlier one with --step")
    weights = {name: _stored(name, array, is_half) for name, array in sorted(weights.items())}
    origin = workdir.read_initialization()
    if isinstance(origin, dict):  # a path is of no use elsewhere, an address of the hub is
        files = [name if is_address(name) else Path(name).name for name in origin["file"].split(",")]
        origin = origin | {"file": ",".join(files)}
    files = {
        WEIGHTS: safetensors.numpy.save(weights, {"format": "pyrseg_jax"}),
        "config.json": config_lib.to_json(_without_places(config)).encode(),
        "classes.json": (json.dumps(label_space.to_json(), indent=1) + "\n").encode(),
        "initialisation.json": (json.dumps(origin, indent=1) + "\n").encode(),
    }
    if not image_space.is_photograph:
        files[IMAGES] = (json.dumps(to_values(image_space), indent=1) + "\n").encode()
    return files


def _stored(name: str, array: np.ndarray, is_half: bool) -> np.ndarray:
    if not (is_half and array.ndim > 1):
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):
        found = array.astype(np.float16)
    if not np.isfinite(found).all():
        largest = float(np.abs(array).max())
        raise UserError(f"--half: {name} holds {largest:.3g}, above the largest float16, 65504: export without --half")
    return np.ascontiguousarray(found)


def _without_places(config: Config) -> Config:
    """Leave out where the data set and the first weights were on this machine."""
    data = dataclasses.replace(config.data, root=None, prepared=None)
    return dataclasses.replace(config, data=data, model=dataclasses.replace(config.model, init=None))
