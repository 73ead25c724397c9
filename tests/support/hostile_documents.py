"""The JSON files that the package reads back, each as a function of its text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pyrseg_jax.data.records import Check, Origin, ShardResult, StoredReports
from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.prediction.manifest import NAME, Manifest
from pyrseg_jax.run.results import StoredResult
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.documents import parse_json
from pyrseg_jax.training.scores import StoredScores


def _workdir(folder: Path, name: str, text: bytes) -> Workdir:
    (folder / name).write_bytes(text)
    return Workdir(str(folder))


def read_config(text: bytes, folder: Path) -> None:
    """Read the configuration of a run; it can be written and read again."""
    from pyrseg_jax.run import config as config_lib

    config = _workdir(folder, "config.json", text).read_config()
    assert config_lib.from_json(config_lib.to_json(config)) == config


def read_label_space(text: bytes, folder: Path) -> None:
    """Read the classes of a run; every class has one value, and the value leads back to the class."""
    space = _workdir(folder, "classes.json", text).read_label_space()
    assert 1 <= space.num_classes == len(space.file_ids) <= 255
    ids = np.arange(space.num_classes, dtype=np.uint8)[None]
    np.testing.assert_array_equal(space.to_train_ids(space.to_file_values(ids), "classes.json"), ids)


def read_initialization(text: bytes, folder: Path) -> None:
    """Read what a run started from."""
    found = _workdir(folder, "initialisation.json", text).read_initialization()
    assert found == "random" or set(found) == {"file", "sha256", "source"}


def read_reports(text: bytes, folder: Path) -> None:
    """Read the reports of a prepared data set; they can be added up."""
    for report in parse_json(text, StoredReports, "reports.json").root.values():
        found = DatasetReport.from_json(report.model_dump())
        found.merge(found)


def read_check(text: bytes, folder: Path) -> None:
    """Read what is remembered of a data set that was read before."""
    check = parse_json(text, Check, "x.json")
    found = DatasetReport.from_json(check.report.model_dump())
    assert found.num_images <= check.num_pairs


def read_written(text: bytes, folder: Path) -> None:
    """Read the record of written files; it counts no file as written that is not in it."""
    (folder / NAME).write_bytes(text)
    (folder / "x.png").write_bytes(b"a photograph")
    assert Manifest(folder).is_foreign("x.png")


DOCUMENTS: dict[str, Callable[[bytes, Path], None]] = {
    "config": read_config,
    "classes": read_label_space,
    "initialisation": read_initialization,
    "reports": read_reports,
    "shard": lambda text, _: _ignore(parse_json(text, ShardResult, "x.report.json")),
    "origin": lambda text, _: _ignore(parse_json(text, Origin, "origin.json")),
    "check": read_check,
    "result": lambda text, _: _ignore(parse_json(text, StoredResult, "validation-4.json")),
    "written": read_written,
    "scores": lambda text, _: _ignore(parse_json(text, StoredScores, "scores.json")),
}


def _ignore(found: object) -> None:
    assert found is not None
