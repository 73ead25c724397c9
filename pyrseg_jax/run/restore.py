"""Restore what a run has learned, for commands that use it."""

from typing import NamedTuple

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on


class Trained(NamedTuple):
    """What a run has learned.

    step: of its checkpoint.
    variables: parameters and batch statistics, on devices.
    """

    step: int
    variables: dict


def restore(config: Config, model: Segmenter, workdir: Workdir, sharding, step: int | None) -> Trained:
    """Restore trained variables onto devices, by default the newest; raises UserError if there are none."""
    abstract = abstract_variables(model, 2 * config.model.strides[0])
    # A folder without checkpoints must not be made by asking for one.
    if not workdir.checkpoints.is_dir():
        raise UserError(f"{workdir.checkpoints} is missing: train first, or name the folder of a run with --workdir")
    checkpoints = Checkpoints(workdir.checkpoints, is_reader=True)
    try:
        found = checkpoints.restore_variables(abstract_on(abstract, sharding), step)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f"{workdir.checkpoints} holds no checkpoint yet: train first")
    return Trained(*found)
