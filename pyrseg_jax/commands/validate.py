"""`--mode=prepare` and `--mode=validate`: a data set, before any training."""

import logging

from pyrseg_jax.data.catalog import TRAINING, Dataset
from pyrseg_jax.data.report import Survey, survey
from pyrseg_jax.data.report_table import hints, table
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config

log = logging.getLogger(__name__)


def prepare(config: Config) -> None:
    """Prepare the data set if it is one that is prepared, and print what its splits hold; raises UserError as `validate`."""
    _report(config, experiment.open_data(config.data))


def validate(config: Config) -> None:
    """Read every image and label of a data set, where it has files of its own these, and print what they hold.

    Raises:
      UserError: at the end, if there is any problem; each is printed on a line of its own.
    """
    _report(config, experiment.open_data(config.data, is_raw=True))


def _report(config: Config, dataset: Dataset) -> None:
    problems = []
    for split in dict.fromkeys((TRAINING, config.evaluation.split)):
        try:
            found = _survey(config, dataset, split)
        except UserError as error:
            problems.append(str(error))
            continue
        print(f"{split} ({dataset.place})\n{table(found, dataset.label_space)}\n")
        problems += [message for _, message in found.problems]
        for hint in hints(found, dataset.label_space):
            print(f"hint ({split}): {hint}")
    for problem in problems:
        print(f"problem: {problem}")
    if problems:
        raise UserError(f"{len(problems)} problem(s) in {dataset.place}, the first: {problems[0]}")
    log.info("no problem found in %s", dataset.place)


def _survey(config: Config, dataset: Dataset, split: str) -> Survey:
    strides = config.model.strides[:-1]  # at the finest level nothing says whether a cell is a unit-cell
    known = dataset.surveys.get(split)
    if known is not None and known.strides == strides:
        return known
    return survey(dataset.open_split(split), dataset.label_space, split, strides, dataset.checksums(split))
