"""The section of the page about confidences: whether they are true, and what temperatures change."""

import logging
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from etils import epath
from pydantic import ConfigDict, Field

from pyrseg_jax.errors import UserError
from pyrseg_jax.report.markup import Cell, number, paragraph, percent, section, table
from pyrseg_jax.report.reliability import Bins, draw
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.paths import is_there

log = logging.getLogger(__name__)

CALIBRATION = "calibration.json"

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Loose(documents.Document):
    model_config = ConfigDict(frozen=True, extra="allow")


class StoredReliability(_Loose):
    """How true confidences are, in `calibration.json`. Earlier versions stored no bins."""

    ece: _Number
    level_ece: list[_Number | None]
    pixels: list[Annotated[int, Field(ge=0)]] = []
    confidence: list[_Share | None] = []
    accuracy: list[_Share | None] = []


class StoredCalibration(_Loose):
    """The keys of `calibration.json` that the report reads."""

    step: int
    split: str
    images: int
    temperatures: list[_Number]
    before: StoredReliability
    after: StoredReliability


class _Measured(NamedTuple):
    """How true confidences are, from either source.

    ece: of all pixels.
    level_ece: of the pixels that each level decides.
    bins: of the diagram.
    key: place of these values in the evaluation's JSON, or None.
    """

    ece: float | None
    level_ece: list[float | None]
    bins: Bins
    key: tuple[str, ...] | None = None


def read_calibration(workdir: epath.Path) -> StoredCalibration | None:
    """Return the calibration of a run; None if there is none, or it is damaged, which a warning says."""
    path = workdir / CALIBRATION
    if not is_there(path):
        return None
    try:
        return documents.read_json(path, StoredCalibration)
    except UserError as error:
        log.warning("the report leaves out the calibration: %s", error)
        return None


def confidence(stored: StoredCalibration | None, values: Mapping[str, Any]) -> str:
    """Lay out how true the confidences are, without and with temperatures.

    Args:
      stored: the calibration of the run, or None.
      values: the result that the report is about; its `calibration` is shown, too, if it was measured.
    """
    parts = []
    if stored is not None:
        about = f"Fitted by `pyrseg calibrate` at step {stored.step:,} on {stored.images:,} images of {stored.split}."
        before, after = (_of_file(found) for found in (stored.before, stored.after))
        parts += [paragraph(about), *_lay_out(before, after, stored.temperatures, "Calibration error", "fitted")]
    measured = values.get("calibration")
    if measured:
        scaled = measured.get("scaled")
        about = "Measured by the evaluation whose scores are above" + (
            ", with the temperatures of the run." if scaled else "."
        )
        before = _of_evaluation(measured, "calibration")
        after = None if scaled is None else _of_evaluation(scaled, "calibration", "scaled")
        temperatures = [] if scaled is None else scaled["temperatures"]
        parts += [
            paragraph(about),
            *_lay_out(before, after, temperatures, "Calibration error of the evaluation", "measured"),
        ]
    return section("confidence", "Confidence", *parts)


def _lay_out(
    before: _Measured, after: _Measured | None, temperatures: list[float], caption: str, identity: str
) -> list[str]:
    rows = []
    for i, plain in enumerate(before.level_ece):
        row = [Cell(f"level {i + 1}", i + 1)]
        if after is not None:
            row.append(number(temperatures[i] if i < len(temperatures) else None))
        row.append(percent(plain, *_key(before, "level_ece", i)))
        if after is not None:
            row.append(
                percent(after.level_ece[i], *_key(after, "level_ece", i)) if i < len(after.level_ece) else number(None)
            )
        rows.append(row)
    whole = [Cell("all", len(rows) + 1), *([number(None)] if after is not None else [])]
    whole.append(percent(before.ece, *_key(before, "ece")))
    if after is not None:
        whole.append(percent(after.ece, *_key(after, "ece")))
    headings = (
        ["", "ECE, %"] if after is None else ["", "temperature", "ECE without temperatures, %", "ECE with them, %"]
    )
    diagrams = {"without temperatures": before.bins} | ({} if after is None else {"with temperatures": after.bins})
    return [table(caption, headings, [*rows, whole], kind="numbers"), draw(diagrams, f"reliability-{identity}")]


def _key(found: _Measured, *places: str | int) -> tuple[str | int, ...]:
    return () if found.key is None else (*found.key, *places)


def _of_file(found: StoredReliability) -> _Measured:
    is_whole = len(found.pixels) == len(found.confidence) == len(found.accuracy)
    bins = Bins(found.pixels, found.confidence, found.accuracy) if is_whole else Bins((), (), ())
    return _Measured(found.ece, found.level_ece, bins)


def _of_evaluation(values: Mapping[str, Any], *key: str) -> _Measured:
    bins = Bins(values["pixels"], values["confidence"], values["accuracy"])
    return _Measured(values["ece"], values["level_ece"], bins, key)
