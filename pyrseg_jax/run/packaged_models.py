"""Trained models found by their names: those that come with the package, and those in the hub. `model_folder.py` reads them."""

import os
from pathlib import Path

from etils import epath

from pyrseg_jax.storage.hub import MAIN, is_address, parse_address
from pyrseg_jax.storage.names import ABOUT_MODEL as ABOUT_MODEL
from pyrseg_jax.storage.names import file_name_of
from pyrseg_jax.storage.paths import is_there, storage_path

_FOLDER = Path(__file__).parents[1] / "pretrained"


def packaged_models() -> dict[str, Path]:
    """Return the folders of the models that come with the package, by name."""
    if not _FOLDER.is_dir():
        return {}
    return {path.name: path for path in sorted(_FOLDER.iterdir()) if (path / ABOUT_MODEL).is_file()}


def find_model(name: str) -> epath.Path:
    """Return the path that a name stands for.

    This is the folder of a packaged model, unless there is a file or folder of this name; for the address of a model in the
    hub, its folder in the hub's cache, see `hub_models.fetch_model`; for anything else, the path itself.
    """
    if is_address(name):
        from pyrseg_jax.run.hub_models import fetch_model  # here, because it imports jax

        return epath.Path(fetch_model(name))
    place = storage_path(name)
    packaged = packaged_models().get(name)
    return place if packaged is None or is_there(place) else epath.Path(packaged)


def run_name_of(name: str) -> str:
    """Return the name of the folder for results about a model: the last part of its path or its address."""
    if is_address(name):
        address = parse_address(name)
        name, revision = address.repository.split("/")[1], address.revision
        return file_name_of(name if revision == MAIN else f"{name}-{revision.replace('/', '-')}")
    return os.path.basename(name.rstrip("/"))
