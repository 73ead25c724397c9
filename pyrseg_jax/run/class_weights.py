"""The class weights of a run: given as numbers or computed from the training split, and kept in its workdir."""

import json
import logging
import math
from pathlib import Path
from typing import Annotated

from etils import epath
from pydantic import Field, model_validator

from pyrseg_jax.data.catalog import Dataset
from pyrseg_jax.data.text_lines import decode
from pyrseg_jax.data.training_report import training_report
from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.workdir import CLASS_WEIGHTS, Workdir
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.storage.paths import is_there
from pyrseg_jax.storage.regular_file import read_regular_file
from pyrseg_jax.training.losses.class_weights import CLASS_WEIGHTINGS, parse_weights, weights_from

log = logging.getLogger(__name__)

MAX_BYTES = 2**20  # of a file of weights: 10,000 numbers take a tenth of it
KEY = "config.loss.class_weights"


class StoredWeights(documents.Document):
    """The content of class_weights.json: where the weights came from, the classes, and the weight of each."""

    source: str
    classes: list[str]
    weights: list[Annotated[float, Field(ge=0)]]

    @model_validator(mode="after")
    def _check_lengths(self) -> "StoredWeights":
        if len(self.classes) != len(self.weights):
            raise ValueError(
                f"expected one weight for each of the {len(self.classes)} classes, found {len(self.weights)}"
            )
        return self


def find_class_weights(config: Config, dataset: Dataset, workdir: Workdir) -> tuple[float, ...] | None:
    """Return the weight of each class, or None if the config asks for none; a log line lists them.

    A run that resumes takes the weights of its workdir. They are not computed again, and a changed file does not change them.

    Raises:
      UserError: naming the key, if there is no such way to compute weights and no such file, or the numbers do not fit the classes.
    """
    given = config.loss.class_weights
    if given is None:
        return None
    names, path = dataset.label_space.names, workdir.path / CLASS_WEIGHTS
    if workdir.has_run() and is_there(path):
        weights = _read_stored(path, names)
    elif given in CLASS_WEIGHTINGS:
        weights = weights_from(training_report(dataset), given, config.loss.effective_beta)
    else:
        weights = _check(_read_numbers(given), names)
    if processes.is_first():
        each = ", ".join(f"{escaped(name)} {weight:.4g}" for name, weight in zip(names, weights, strict=True))
        log.info("class weights (%s): %s", escaped(given), each)
    return weights


def keep_class_weights(config: Config, dataset: Dataset, workdir: Workdir, weights: tuple[float, ...] | None) -> None:
    """Write the weights of a new run to its workdir; those of a run that has them stay; raises UserError if it cannot."""
    path = workdir.path / CLASS_WEIGHTS
    if weights is None or is_there(path):
        return
    content = {"source": config.loss.class_weights, "classes": list(dataset.label_space.names), "weights": weights}
    try:
        write_atomically(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): make room or restore access, or choose another folder with "
            "--workdir"
        ) from error


def _read_stored(path: epath.Path, names: tuple[str, ...]) -> tuple[float, ...]:
    stored = documents.read_json(path, StoredWeights, "restore it, or use another --workdir")
    if tuple(stored.classes) != tuple(names):
        raise UserError(
            f"{path} holds the weights of other classes ({', '.join(map(escaped, stored.classes[:4]))}, …) than the data set has "
            f"({', '.join(map(escaped, names[:4]))}, …): restore it, or use another --workdir"
        )
    return tuple(stored.weights)


def _read_numbers(given: str) -> tuple[float, ...]:
    """Read numbers from the key itself, or from the file that it names."""
    numbers = parse_weights(given)
    if numbers is not None:
        return numbers
    path = Path(given).expanduser()
    try:
        text = decode(read_regular_file(path, MAX_BYTES), path)
    except OSError as error:
        raise UserError(
            f"{KEY}={given!r}: expected {', '.join(CLASS_WEIGHTINGS)}, one number per class such as '1, 2.5, 0.5', or the path of "
            f"a text file with these numbers; as a path, it cannot be read ({error.strerror or error})"
        ) from error
    numbers = parse_weights(text)
    if numbers is None:
        raise UserError(f"{KEY}={given!r}: expected a text file of numbers with commas or line breaks between them")
    return numbers


def _check(weights: tuple[float, ...], names: tuple[str, ...]) -> tuple[float, ...]:
    if len(weights) != len(names):
        raise UserError(
            f"{KEY} has {len(weights)} numbers: expected one for each of the {len(names)} classes "
            f"({', '.join(map(escaped, names[:4]))}, …), in this order"
        )
    wrong = [weight for weight in weights if not math.isfinite(weight) or weight < 0]
    if wrong or not any(weights):
        found = f"{wrong[0]:g}" if wrong else "only zeros"
        raise UserError(f"{KEY} holds {found}: expected finite numbers, none below 0 and at least one above")
    return weights
