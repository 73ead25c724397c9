"""Restore the trained variables of a run, for commands that use them."""

from typing import NamedTuple

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.model_folder import read_model
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.paths import is_there
from pyrseg_jax.training import checkpoint_metadata
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on
from pyrseg_jax.training.checkpoint_metadata import stored_variables


class Trained(NamedTuple):
    """The trained variables of a run.

    step: step of their checkpoint.
    variables: parameters and batch statistics, on devices.
    fingerprint: a short text that tells these variables from all others.
    """

    step: int
    variables: dict
    fingerprint: str


def restore(config: Config, model: Segmenter | None, workdir: Workdir, sharding, step: int | None) -> Trained:
    """Restore trained variables onto devices, from a checkpoint of a run or from a model folder.

    Args:
      config: the run's configuration.
      model: the network, with which the checkpoint is compared. Without it, seconds are saved, and what does not fit is found when
        the network is used.
      workdir: the run's folder.
      sharding: the sharding of the restored variables.
      step: step of the checkpoint; by default the newest.

    Raises:
      UserError: if there is no such checkpoint, or it cannot be read.
    """
    if workdir.has_model():
        expected = None if model is None else abstract_variables(model, 2 * config.model.strides[0])
        found = read_model(workdir.path, expected, sharding)
        if step not in (None, found[0]):
            raise UserError(f"{workdir.path} is a model folder with step {found[0]}, not {step}: leave out --step")
        return Trained(*found)
    # Looking for checkpoints must not create the folder.
    if not workdir.checkpoints.is_dir():
        found = "is not a folder" if is_there(workdir.checkpoints) else "is missing"
        raise UserError(f"{workdir.checkpoints} {found}: train first, or give the folder of a run with --workdir")
    about = {"classes": workdir.read_label_space().names}
    checkpoints = Checkpoints(workdir.checkpoints, is_reader=True, about=about)
    try:
        if model is None:
            found = checkpoints.restore_variables(lambda folder: stored_variables(folder, sharding), step)
        else:
            abstract = abstract_variables(model, 2 * config.model.strides[0])
            found = checkpoints.restore_variables(abstract_on(abstract, sharding), step)
        fingerprint = "" if found is None else checkpoint_metadata.fingerprint(checkpoints.folder_of(found[0]))
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f"{workdir.checkpoints} holds no checkpoint yet: train first")
    return Trained(*found, fingerprint)
