"""The calibration of a run, `calibration.json` in its workdir: the temperatures, what they are for, and what they changed."""

import json
import logging
from typing import Annotated, Any

from pydantic import Field, model_validator

from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.calibrator import Fitted
from pyrseg_jax.evaluation.reliability import BINS
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.networks import make_evaluation_protocol
from pyrseg_jax.run.restore import Trained
from pyrseg_jax.run.workdir import CALIBRATION, Workdir
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.storage.paths import is_there

log = logging.getLogger(__name__)

ADVICE = "delete it, or run `pyrseg calibrate` again"
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0)]
_Temperature = Annotated[float, Field(gt=0, le=1000)]


class Reliability(documents.Document):
    """How true confidences are; `reliability.summarize_confidences` explains the keys, and `nll` is the mean loss in nats."""

    ece: _Share
    level_ece: list[_Share | None]
    nll: Annotated[float, Field(ge=0)]
    pixels: Annotated[list[_Count], Field(min_length=BINS, max_length=BINS)]
    confidence: Annotated[list[_Share | None], Field(min_length=BINS, max_length=BINS)]
    accuracy: Annotated[list[_Share | None], Field(min_length=BINS, max_length=BINS)]


class Calibration(documents.Document):
    """The content of calibration.json.

    step, weights: of the checkpoint; `weights` is a digest that tells it from all others.
    protocol, threshold: how the network saw the images, and τ of the fuser.
    data, split, images: what it was fitted on.
    temperatures, pixels: T of each level, coarse → fine, and the labeled pixels that the level decides.
    before, after: the scores without and with temperatures; those with them are cross-validated.
    """

    step: _Count
    weights: str
    protocol: dict[str, Any]
    threshold: _Share
    data: str
    split: str
    images: _Count
    temperatures: Annotated[list[_Temperature], Field(min_length=1)]
    pixels: list[_Count]
    before: Reliability
    after: Reliability

    @model_validator(mode="after")
    def _check_lengths(self) -> "Calibration":
        num_levels = len(self.temperatures)
        for name, found in (
            ("pixels", self.pixels),
            ("before.level_ece", self.before.level_ece),
            ("after.level_ece", self.after.level_ece),
        ):
            if len(found) != num_levels:
                raise ValueError(
                    f"{name} has {len(found)} values: expected one for each of the {num_levels} temperatures"
                )
        return self


def write_calibration(config: Config, workdir: Workdir, trained: Trained, fitted: Fitted) -> Calibration:
    """Write calibration.json, and return its content; raises UserError if it cannot be written."""
    found = Calibration(
        step=trained.step,
        weights=trained.fingerprint,
        protocol=_protocol_of(config),
        threshold=config.evaluation.threshold,
        data=config.data.name,
        split=config.evaluation.split,
        images=fitted.num_images,
        temperatures=list(fitted.temperatures),
        pixels=list(fitted.pixels),
        before=Reliability(**fitted.before),
        after=Reliability(**fitted.after),
    )
    path = workdir.path / CALIBRATION
    try:
        write_atomically(path, json.dumps(found.model_dump(), indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): make room or restore access, then calibrate again"
        ) from error
    return found


def read_temperatures(config: Config, workdir: Workdir, trained: Trained, num_levels: int) -> tuple[float, ...] | None:
    """Return the temperatures of a checkpoint; arguments, errors, and None as for `read_calibration`."""
    found = read_calibration(config, workdir, trained, num_levels)
    return None if found is None else tuple(found.temperatures)


def read_calibration(config: Config, workdir: Workdir, trained: Trained, num_levels: int) -> Calibration | None:
    """Return the calibration of a checkpoint under the protocol of a config, or None if it was not calibrated for both.

    A log line says so if there is a calibration for something else.

    Raises:
      UserError: if calibration.json is damaged.
    """
    path = workdir.path / CALIBRATION
    if not is_there(path):
        return None
    found = documents.read_json(path, Calibration, ADVICE)
    if len(found.temperatures) != num_levels:
        raise UserError(
            f"{path} has {len(found.temperatures)} temperatures: expected one for each of the {num_levels} levels of the network; "
            f"{ADVICE}"
        )
    differences = [
        f"{name} {was} → {now}"
        for name, was, now in (
            ("step", found.step, trained.step),
            ("weights", found.weights, trained.fingerprint),
            ("threshold", found.threshold, config.evaluation.threshold),
            *((name, found.protocol.get(name), value) for name, value in _protocol_of(config).items()),
        )
        if was != now
    ]
    if differences:
        log.info(
            "%s is for other predictions (%s): confidences stay as the network gives them; `pyrseg calibrate` fits them",
            *(path, ", ".join(differences)),
        )
        return None
    return found


def _protocol_of(config: Config) -> dict[str, Any]:
    return json.loads(json.dumps(make_evaluation_protocol(config).values()))  # as JSON gives it back
