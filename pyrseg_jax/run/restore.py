"""Restore the trained variables of a run, for commands that use them."""

from typing import NamedTuple

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on


class Trained(NamedTuple):
    """The trained variables of a run.

    step: of their checkpoint.
    variables: parameters and batch statistics, on devices.
    """

    step: int
    variables: dict


def restore(config: Config, model: Segmenter, workdir: Workdir, sharding, step: int | None) -> Trained:
    """Restore trained variables onto devices.

    Args:
      config: of the run.
      model: the network.
      workdir: of the run.
      sharding: of the restored variables.
      step: of the checkpoint; None: the newest one.

    Raises:
      UserError: if there is no such checkpoint, or it cannot be read.
    """
    abstract = abstract_variables(model, 2 * config.model.strides[0])
    # Looking for checkpoints must not create the folder.
    if not workdir.checkpoints.is_dir():
        raise UserError(f"{workdir.checkpoints} is missing: train first, or give the folder of a run with --workdir")
    checkpoints = Checkpoints(workdir.checkpoints, is_reader=True)
    try:
        found = checkpoints.restore_variables(abstract_on(abstract, sharding), step)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f"{workdir.checkpoints} holds no checkpoint yet: train first")
    return Trained(*found)
