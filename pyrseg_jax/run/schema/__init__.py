"""All configuration keys, each with its meaning, unit, range and default.

One file per group. These classes check the values of config files and flags. `pyrseg help KEY`, `docs/reference/config.md` and
`docs/reference/config.schema.json` are generated from them (`python -m pyrseg_jax.run.reference`).
"""

from pydantic import Field

from pyrseg_jax.run.declare import group, key
from pyrseg_jax.run.schema.augment import Augment
from pyrseg_jax.run.schema.data import Data
from pyrseg_jax.run.schema.evaluation import Evaluation
from pyrseg_jax.run.schema.loss import Loss
from pyrseg_jax.run.schema.model import Model
from pyrseg_jax.run.schema.optimizer import Optimizer
from pyrseg_jax.run.schema.parallel import Parallel
from pyrseg_jax.run.schema.seeds import MAX_SEED
from pyrseg_jax.run.schema.training import Training

__all__ = ["MAX_SEED", "Augment", "Config", "Data", "Evaluation", "Loss", "Model", "Optimizer", "Parallel", "Training"]


@group
class Config:
    """One experiment.

    Attributes:
      said: the original text of durations that have been converted to steps, for example
        `{"training.steps": "120 epochs"}`. It is a record and not a key.
    """

    seed: int = key(
        0,
        "Seed for the initial weights, the order of the images, and their augmentation.",
        at_least=0,
        at_most=MAX_SEED,
    )
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    augment: Augment = Augment()
    evaluation: Evaluation = Evaluation()
    parallel: Parallel = Parallel()
    said: dict[str, str] = Field(default_factory=dict)
