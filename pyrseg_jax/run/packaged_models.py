"""The models that come with the package, found by their names; `model_folder.py` reads them."""

from pathlib import Path

from etils import epath

from pyrseg_jax.storage.paths import is_there

ABOUT_MODEL = "model.json"  # name of the file that makes a folder a model folder
_FOLDER = Path(__file__).parents[1] / "pretrained"


def packaged_models() -> dict[str, Path]:
    """Return the folders of the models that come with the package, by name."""
    if not _FOLDER.is_dir():
        return {}
    return {path.name: path for path in sorted(_FOLDER.iterdir()) if (path / ABOUT_MODEL).is_file()}


def find_model(name: str) -> epath.Path:
    """Return the path that a name stands for: that of a packaged model, unless there is a file or folder of this name."""
    place = epath.Path(name).expanduser()
    packaged = packaged_models().get(name)
    return place if packaged is None or is_there(place) else epath.Path(packaged)
