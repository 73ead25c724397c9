"""Check the data of a run before it starts, and log what looks like a mistake."""

import logging

from pyrseg_jax.data.catalog import Dataset
from pyrseg_jax.data.inspection import inspect_for_evaluation, inspect_for_training
from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.image_space import known_image_space
from pyrseg_jax.run.naming import complete_names, naming
from pyrseg_jax.run.workdir import Workdir

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


@naming("data")
def open_data_of_run(config: Config, workdir: Workdir) -> Dataset:
    """Open the data set that the config names, which must have the classes of the run.

    Raises:
      UserError: if it has other classes, or as `experiment.open_data` does.
    """
    label_space = workdir.read_label_space()
    dataset = experiment.open_data(config.data, image_space=known_image_space(config, workdir))
    if dataset.label_space.names != label_space.names:
        raise UserError(
            f"the run in {workdir.path} has {label_space.num_classes} classes ({', '.join(label_space.names[:4])}, …), but the "
            f"data set in {dataset.place} has {dataset.label_space.num_classes} "
            f"({', '.join(dataset.label_space.names[:4])}, …): evaluate on the data set that the run was trained on"
        )
    return dataset


def _log(hints: list[tuple[str, str]]) -> None:
    if processes.is_first():
        for split, hint in hints:
            log.warning("hint (%s): %s", split, complete_names(hint, "data"))
