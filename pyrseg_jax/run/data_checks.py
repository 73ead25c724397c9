"""Check the data of a run before it starts, and log what looks like a mistake."""

import logging

from pyrseg_jax.data.catalog import Dataset
from pyrseg_jax.data.inspection import inspect_for_evaluation, inspect_for_training
from pyrseg_jax.distributed import processes
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.naming import complete_names, naming

log = logging.getLogger(__name__)


@naming("data")
def check_training_data(config: Config, dataset: Dataset) -> None:
    """Check every file that a training uses: a bad file must not cost an hour. Log the hints that `validate` prints.

    Raises:
      UserError: for a file that cannot be used, or if nothing is labeled in the training split.
    """
    _log(inspect_for_training(dataset, config.evaluation.split))


@naming("data")
def check_evaluation_data(config: Config, dataset: Dataset) -> None:
    """Check every file that an evaluation uses, as `check_training_data` does."""
    _log(inspect_for_evaluation(dataset, config.evaluation.split))


def _log(hints: list[tuple[str, str]]) -> None:
    if processes.is_first():
        for split, hint in hints:
            log.warning("hint (%s): %s", split, complete_names(hint, "data"))
