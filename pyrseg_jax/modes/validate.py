"""`--mode=prepare` and `--mode=validate`: a data set, before any training."""

import logging

from pyrseg_jax import experiment
from pyrseg_jax.config import Config
from pyrseg_jax.data.survey import survey
from pyrseg_jax.errors import UserError
from pyrseg_jax.modes.train import SPLIT

log = logging.getLogger(__name__)


def validate(config: Config) -> None:
    """Prepare the data set if it is one that is prepared, read every image and label of it, and print what they hold.

    Raises:
      UserError: at the end, if there is any problem; each is printed on a line of its own.
    """
    dataset = experiment.open_data(config.data)
    problems = []
    for split in dict.fromkeys((SPLIT, config.evaluation.split)):
        try:
            source = dataset.open_split(split)
        except UserError as error:
            problems.append(str(error))
            continue
        found = survey(source, dataset.label_space, split)
        print(f"{split} ({dataset.place})\n{found.table(dataset.label_space)}\n")
        problems += found.problems
        absent = [name for name, pixels in zip(dataset.label_space.names, found.pixels, strict=True) if not pixels]
        if absent and not found.problems:
            log.warning(
                "classes without a single pixel in %s: %s; are the label values shifted?", split, ", ".join(absent)
            )
    for problem in problems:
        print(f"problem: {problem}")
    if problems:
        raise UserError(f"{len(problems)} problem(s) in {dataset.place}, the first: {problems[0]}")
    log.info("no problem found in %s", dataset.place)
