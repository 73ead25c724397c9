"""Read what a run has written, for its report. Nothing is computed that an evaluation has computed already."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.views import PROTOCOLS
from pyrseg_jax.report.curves import Point
from pyrseg_jax.reporting.logbook import METRICS
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run.compared_runs import NEWEST, PROTOCOL_KEYS, Run, read_run
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.finished import FINISHED
from pyrseg_jax.run.results import StoredResult
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.paths import is_remote, is_there
from pyrseg_jax.storage.regular_file import read_regular_file

log = logging.getLogger(__name__)
MAX_BYTES = 4 * 2**30  # of the record of a run: some ten million lines


class Listed(NamedTuple):
    """One of the results of a run.

    name: of its file, without the suffix.
    values: its content.
    """

    name: str
    values: dict[str, Any]


class Collected(NamedTuple):
    """What a run has written.

    workdir: the path of its folder.
    config: its configuration.
    label_space: its classes.
    metrics: the lines of `metrics.jsonl`.
    results: its results, sorted by step and name.
    run: the result that the report is about, with the counts of its images; None if there is none.
    values: the content of that result; {} if there is none.
    environment: the content of `environment.json`; {} if it cannot be read.
    initialization: see `Workdir.read_initialization`.
    end: the content of the file `finished`; {} for a run that has not come to its end.
    """

    workdir: epath.Path
    config: Config
    label_space: LabelSpace
    metrics: list[dict[str, Any]]
    results: list[Listed]
    run: Run | None
    values: dict[str, Any]
    environment: dict[str, Any]
    initialization: str | dict
    end: dict[str, Any]


def collect(workdir: Workdir, config: Config, which: str | None = None) -> Collected:
    """Read the files of a run.

    Args:
      workdir: the folder of the run.
      config: its configuration.
      which: the result that the report is about, see `compared_runs.read_run`; None takes the newest one of the run's own split
        and protocol, or none if there is none at all.

    Raises:
      UserError: naming the file, if the classes, the chosen result or the counts of its images cannot be read. Other files that
        cannot be read are left out, and a warning names them.
    """
    results = _read_results(workdir.results.folder)
    run = None if which is None and not results else read_run(workdir.path, which or NEWEST)
    values = {} if run is None else documents.parse_object(documents.read_document(run.path), run.path)
    return Collected(
        workdir.path,
        config,
        workdir.read_label_space(),
        read_metrics(workdir.path / METRICS),
        results,
        run,
        values,
        _read_object(workdir.path / "environment.json"),
        workdir.read_initialization(),
        _read_object(workdir.path / FINISHED),
    )


def config_of_result(config: Config, values: Mapping[str, Any]) -> Config:
    """Return the configuration with which a result was computed, as far as the result says so.

    Args:
      config: the configuration of the run.
      values: the content of the result.
    """
    protocol, data = values.get("protocol", {}), values.get("data") or {}
    changes = {"evaluation.split": data["split"]} if data.get("split") else {}
    name = protocol.get("name")
    if name in PROTOCOLS:
        changes["evaluation.protocol"] = name
        has_sizes = "short_side_px" in PROTOCOLS[name]  # of its own, which the keys do not set
        kept = [key for key in PROTOCOL_KEYS if key in protocol and (key == "threshold" or not has_sizes)]
        changes |= {f"evaluation.{key}": protocol[key] for key in kept}
    return config_lib.changed(config, changes)


def curve_of_results(collected: Collected, name: str) -> list[Point]:
    """Return a score by step, of the results with the split, protocol and data set of the one that the report is about."""
    if collected.run is None:
        return []
    found = {}
    for result in collected.results:
        values = result.values
        is_alike = all(_identity(values)[key] == value for key, value in _identity(collected.values).items())
        if is_alike and isinstance(values.get(name), float):
            found[values["step"]] = values[name]
    return sorted(found.items())


def read_metrics(path: epath.Path) -> list[dict[str, Any]]:
    """Read the record of a run; lines that are damaged or not written to their end are left out."""
    try:
        content = path.read_bytes() if is_remote(path) else read_regular_file(Path(path), MAX_BYTES)
    except (OSError, UserError) as error:
        log.warning("%s cannot be read (%s): the report has no curves", path, error)
        return []
    found: dict[int, dict[str, Any]] = {}
    for line in content.splitlines():
        try:
            values = json.loads(line)
            if type(values["step"]) is int:
                found[values["step"]] = values
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return [found[step] for step in sorted(found)]


def _identity(values: Mapping[str, Any]) -> dict[str, Any]:
    protocol = {name: value for name, value in values.get("protocol", {}).items() if name != "initialisation"}
    data = values.get("data") or {}
    return {"protocol": protocol, "split": data.get("split"), "fingerprint": data.get("fingerprint")}


def _read_results(folder: epath.Path) -> list[Listed]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.endswith(".json"))
    except OSError:  # there is no folder yet
        return []
    found = []
    for path in paths:
        try:
            content = documents.read_document(path)
            documents.parse_json(content, StoredResult, path)
            found.append(Listed(path.stem, documents.parse_object(content, path)))
        except UserError as error:
            log.warning("the report leaves out a result: %s", error)
    return sorted(found, key=lambda result: (result.values["step"], result.name))


def _read_object(path: epath.Path) -> dict[str, Any]:
    if not is_there(path):
        return {}
    try:
        return documents.parse_object(documents.read_document(path), path)
    except UserError as error:
        log.warning("the report leaves out a file: %s", error)
        return {}
