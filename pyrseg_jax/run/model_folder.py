"""Model folders: a trained network as weights in safetensors, its configuration, and its classes. No file of it is code.

A model folder has the files of a run that describe the network (`config.json`, `classes.json`, …), but instead of checkpoints
`model.safetensors`, and `model.json` with the SHA-256 of every other file. `pyrseg export --format=folder` writes one. Some come
with the package; `packaged_models.py` finds them by their names.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from pydantic import Field

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.safetensors_file import MAX_BYTES, read_safetensors
from pyrseg_jax.run.packaged_models import ABOUT_MODEL, find_model, packaged_models
from pyrseg_jax.run.workdir import CALIBRATION, IMAGES, Workdir
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import write_bytes_atomically
from pyrseg_jax.storage.paths import is_remote, is_there
from pyrseg_jax.storage.regular_file import open_regular_file, read_regular_file

WEIGHTS, CARD, LICENSE = "model.safetensors", "README.md", "LICENSE"
REQUIRED = (WEIGHTS, "config.json", "classes.json", "initialisation.json")
OPTIONAL = (IMAGES,)  # where the network reads other images than photographs
ADVICE = "get the folder again from where it came from"
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class AboutModel(documents.Document):
    """The content of model.json.

    format: of the folder.
    step: of the checkpoint that was exported.
    run: identity of the run; see `export.target.run_identity`.
    pyrseg_jax: the version that wrote the folder.
    sha256: by file, all that must be unchanged. The model card and a calibration are not among them.
    """

    format: Literal[1]
    step: Annotated[int, Field(ge=0)]
    run: str
    pyrseg_jax: str
    sha256: dict[str, _Digest]


def is_model_folder(place: Path | epath.Path) -> bool:
    """Return whether a folder was written by an export, complete or damaged."""
    return is_there(place / ABOUT_MODEL) and is_there(place / "config.json")


def read_about_model(folder: Path) -> AboutModel:
    """Read model.json, and check that every file that it lists is there and unchanged.

    Raises:
      UserError: naming the file that is missing, damaged, or changed.
    """
    about = documents.read_json(folder / ABOUT_MODEL, AboutModel, ADVICE)
    missing = [name for name in REQUIRED if name not in about.sha256]
    foreign = [name for name in about.sha256 if name not in REQUIRED + OPTIONAL]
    if missing or foreign:
        what = f"does not list {missing[0]}" if missing else f"lists {documents.shorten(foreign[0])}"
        raise UserError(f"{folder / ABOUT_MODEL} {what}: expected {', '.join(REQUIRED)}; {ADVICE}")
    for name in OPTIONAL:
        if is_there(folder / name) and name not in about.sha256:
            raise UserError(f"{folder / name} does not belong to this model: remove it, or {ADVICE}")
    for name, expected in about.sha256.items():
        try:
            with open_regular_file(folder / name, MAX_BYTES) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read ({error.strerror or error}): {ADVICE}") from error
        if found != expected:
            raise UserError(
                f"{folder / name} has another SHA-256 ({found[:12]}…) than {ABOUT_MODEL} says ({expected[:12]}…): it was changed "
                f"or damaged; {ADVICE}"
            )
    return about


def read_model(folder: epath.Path, expected: dict | None, sharding: Any) -> tuple[int, dict, str]:
    """Read the trained variables of a model folder onto devices.

    Args:
      folder: the folder, on a local disk.
      expected: shapes of the network's variables; None leaves the comparison to the use of the network.
      sharding: the sharding of the variables.

    Returns:
      The step of the checkpoint, the variables in float32, and a short text that tells them from all others.

    Raises:
      UserError: if a file is missing, damaged, or changed, or the arrays are not those of the network.
    """
    if is_remote(folder):
        raise UserError(f"{folder} is in remote storage: copy the model folder to a disk")
    about, path = read_about_model(Path(folder)), Path(folder) / WEIGHTS
    flat = {tuple(name.split("/")): array for name, array in read_safetensors(path).items()}
    for at, array in flat.items():
        is_number = array.dtype.kind == "f"
        if not (is_number and np.isfinite(array).all()):
            what = "values that are not numbers" if is_number else f"the type {array.dtype}, expected floats"
            raise UserError(f"{path}: {documents.shorten('/'.join(at))} has {what}: {ADVICE}")
    if expected is not None:
        _check_arrays(flat, flatten_dict(expected), path)
    variables = unflatten_dict({at: array.astype(np.float32) for at, array in flat.items()})
    return about.step, jax.device_put(variables, sharding), about.sha256[WEIGHTS][:16]


def _check_arrays(found: dict, expected: Any, path: Path) -> None:
    """Raise UserError unless there are exactly the arrays of the network, each with its shape."""
    for names, what in ((expected.keys() - found.keys(), "lacks"), (found.keys() - expected.keys(), "has")):
        if names:
            raise UserError(
                f"{path} {what} {documents.shorten('/'.join(min(names)))}, unlike the network of config.json: {ADVICE}"
            )
    for at, array in found.items():
        if array.shape != expected[at].shape:
            raise UserError(
                f"{path}: {'/'.join(at)} has the shape {array.shape}: expected {expected[at].shape} for the network of "
                f"config.json; {ADVICE}"
            )


def place_model(name: str, workdir: Workdir) -> None:
    """Copy a model folder to a workdir, so that results about it have a place; one that is there already stays as it is.

    Args:
      name: the path of the folder, the name of a packaged model, or the address of a model in the hub.
      workdir: where to put it.

    Raises:
      UserError: if no model has this name, the model is damaged, or the workdir holds something else.
    """
    source = find_model(name)
    if not is_model_folder(source):
        listed = ", ".join(packaged_models()) or "none"
        raise UserError(
            f"--model={name}: expected a folder that `pyrseg export --format=folder` wrote (it has {ABOUT_MODEL}), the name of a "
            f"packaged model ({listed}), or hf://ORG/NAME"
        )
    if is_remote(source) or is_remote(workdir.path):
        raise UserError(f"--model={name}: copy the model folder to a disk, and give a --workdir on a disk")
    target = Path(workdir.path)
    about = read_about_model(Path(source))
    if is_model_folder(target):
        if read_about_model(target) == about:
            return
        raise UserError(f"{target} holds another model than --model={name}: give another --workdir")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"{target} exists and is not this model: give an empty or new folder with --workdir")
    try:
        target.mkdir(parents=True, exist_ok=True)
        there = [file for file in (*about.sha256, CARD, LICENSE, CALIBRATION) if is_there(source / file)]
        for file in there:
            write_bytes_atomically(target / file, read_regular_file(Path(source) / file, MAX_BYTES))
        # Last, so that an interrupted copy is not taken for a model.
        shutil.copyfile(Path(source) / ABOUT_MODEL, target / ABOUT_MODEL)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror or error}): give another --workdir") from error
