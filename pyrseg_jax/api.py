"""Use a trained model from Python: `pyrseg_jax.load(path)(image).labels`."""

from pathlib import Path

import jax
from etils import epath

from pyrseg_jax.errors import UserError
from pyrseg_jax.export.predictor import ExportedPredictor
from pyrseg_jax.export.read import read_export
from pyrseg_jax.reporting.result import Result
from pyrseg_jax.run.image_space import known_image_space
from pyrseg_jax.run.model_predictor import make_predictor
from pyrseg_jax.run.networks import make_model
from pyrseg_jax.run.packaged_models import find_model, packaged_models
from pyrseg_jax.run.predictor import ImageLike, Predictor, read_image
from pyrseg_jax.run.quiet import quiet_libraries
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import Workdir

__all__ = ["ImageLike", "Predictor", "Result", "load", "read_image"]


def load(path: str | Path, step: int | None = None) -> Predictor:
    """Load a trained model. Only our own warnings are logged, as in the command line.

    Args:
      path: the folder of a run, one of its checkpoints (`RUN/checkpoints/STEP`), a file or a folder written by `--mode=export`, the
        name of a model that comes with the package, such as `camvid-small`, or the address of a model in the Hugging Face hub,
        `hf://ORG/NAME` or `hf://ORG/NAME@REVISION`.
      step: step of the run's checkpoint; by default the newest.

    Raises:
      UserError: if there is no model at `path`, or it cannot be read.
    """
    with quiet_libraries():
        return _load(find_model(str(path)), step)


def _load(place: epath.Path, step: int | None) -> Predictor:
    if place.is_file():
        return ExportedPredictor(read_export(Path(place)))
    if place.parent.name == "checkpoints" and place.name.isdecimal() and step is None:
        place, step = place.parent.parent, int(place.name)
    elif place.name == "checkpoints":
        place = place.parent
    workdir = Workdir(str(place))
    if not workdir.has_run():
        raise UserError(
            f"{place} holds no model: expected the folder of a run (with config.json), one of its checkpoints, a file or "
            "folder written by --mode=export, hf://ORG/NAME, or the name of a packaged model "
            f"({', '.join(packaged_models()) or 'none'})"
        )
    config, label_space = workdir.read_config(), workdir.read_label_space()
    image_space = known_image_space(config, workdir)
    model = make_model(config, label_space)
    trained = restore(config, model, workdir, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), step)
    return make_predictor(config, model, trained.variables, label_space, image_space=image_space)
