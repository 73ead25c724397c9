"""JSON files that are read back: whatever is in the file, the answer is the right object or one clear line naming the file."""

import dataclasses
import json

import pytest
from etils import epath

from pyrseg_jax.data.label_space import LabelSpace, ade_layout
from pyrseg_jax.data.records import ShardResult, StoredReport, StoredReports
from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.errors import UserError
from pyrseg_jax.export.format import About
from pyrseg_jax.paper.ablation.results import RunConfig
from pyrseg_jax.run.workdir import Initialization
from pyrseg_jax.storage import documents
from pyrseg_jax.training.checkpoint import About as CheckpointAbout
from pyrseg_jax.training.scores import Scores, StoredScores

SCHEMAS = (LabelSpace, Initialization, About, StoredScores, StoredReports, ShardResult, RunConfig)
DAMAGED = {
    "nothing": b"",
    "half of a file": b'{"names": ["road", ',
    "no text": b"\xff\xfe\x00",
    "a list": b"[[1, 2]]",
    "a number": b"7",
    "NaN": b'{"names": NaN, "7": NaN}',
    "null": b"null",
    "a value of another type": b'{"names": 3, "file": 3, "sizes": 3, "7": "high", "report": 3, "training": 3}',
    "huge nesting": b"[" * 50_000 + b"]" * 50_000,
    "nested objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a huge number": b'{"7": ' + b"9" * 9_999 + b"}",
    "a long value": json.dumps({"names": "x" * 9_999, "7": "x" * 9_999}).encode(),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, schema, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        documents.read_json(path, schema, "remove it")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("; remove it")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 250


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"nothing\.json cannot be read \(No such file or directory\): restore the file"
    ):
        documents.read_json(tmp_path / "nothing.json", LabelSpace)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colours": []}, "the key colours is not known"),
        ({"names": None}, "names=None: expected a list, found NoneType"),
        ({"names": ["road", 3]}, r"names\[1\]=3: expected str, found int"),
        ({"file_ids": [1.5, 2]}, r"file_ids\[0\]=1\.5: expected int, found float"),
        ({"file_ids": [True, 2]}, r"file_ids\[0\]=True: expected int, found bool"),
        ({"file_ids": [1]}, "expected one item of file_ids per class, found 2 names and 1 file_ids"),
        ({"file_ids": [1, 256]}, "expected values of label files and of colors between 0 and 255"),
        ({"colors": [[300, 0, 0], [0, 0, 0]]}, "expected values of label files and of colors between 0 and 255"),
        ({"colors": [[0, 0, 0]]}, "expected one item of colors per class, found 2 names and 1 colors"),
        ({"also": [[300, 0]]}, "expected pairs of a value between 0 and 255 and a train id in also"),
        ({"names": [], "file_ids": []}, "expected 1 to 255 names, found 0"),
        ({"a\nb": 1}, r"the key 'a\\nb' is not known"),
    ],
)
def test_what_is_wrong_with_the_classes_is_named(values, message):
    whole = dataclasses.asdict(ade_layout(("road", "sky")))
    assert documents.parse_json(json.dumps(whole), LabelSpace, "x") == ade_layout(("road", "sky"))
    with pytest.raises(UserError, match=message):
        documents.parse_json(json.dumps(whole | values), LabelSpace, "x")
    del whole["names"]
    with pytest.raises(UserError, match="the key names is missing"):
        documents.parse_json(json.dumps(whole), LabelSpace, "x")


ABOUT = {
    "format": 1,
    "classes": ["road"],
    "label_space": dataclasses.asdict(ade_layout(("road",))),
    "strides": [8, 4],
    "sizes": [[64, 64]],
    "threshold": 0.5,
}
REPORT = DatasetReport.empty(2).to_json()
WEIGHTS = {"file": "w.pth", "sha256": "0", "source": "HRNet"}


@pytest.mark.parametrize(
    ("schema", "whole", "values", "message"),
    [
        (About, ABOUT, {"sizes": []}, r"sizes=\[\]: "),
        (About, ABOUT, {"format": 3}, "format=3: expected 1 or 2"),
        (About, ABOUT, {"threshold": 5.0}, "threshold=5.0: expected at most 1"),
        (Initialization, WEIGHTS, {"file": 1}, "file=1: expected str, found int"),
        (StoredReport, REPORT, {"pixels": [1]}, "found lists of different lengths"),
        (StoredReport, REPORT, {"cells": [[1], [1, 2], [1, 2]]}, r"cells\[0\]"),
        (StoredReport, REPORT, {"pixels": [10**30, 1]}, r"pixels\[0\]=1000"),
        (
            CheckpointAbout,
            {"checksums": {"variables": {"a": "0"}}},
            {"checksums": []},
            "checksums=.*: expected an object",
        ),
        (CheckpointAbout, {"checksums": {}}, {"checksums": {"variables": None}}, "variables=None: expected an object"),
    ],
)
def test_what_is_wrong_with_a_record_is_named(schema, whole, values, message):
    documents.parse_json(json.dumps(whole), schema, "x")
    with pytest.raises(UserError, match=message):
        documents.parse_json(json.dumps(whole | values), schema, "x")


def test_a_report_of_a_data_set_survives_the_round_trip():
    report = DatasetReport.empty(3)
    report.sizes[4, 5] = 2
    report.problems.append((1, "bad"))
    text = json.dumps({"training": report.to_json()})
    stored = documents.parse_json(text, StoredReports, "x").root["training"]
    assert DatasetReport.from_json(stored.model_dump()).to_json() == report.to_json()


def test_damaged_scores_count_as_none_and_are_named(tmp_path, caplog):
    path = epath.Path(tmp_path) / "scores.json"
    assert Scores(path).get(3) is None
    assert caplog.text == ""
    path.write_text('{"3": 0.5}')
    assert Scores(path).get(3) == 0.5
    path.write_text('{"3": "high"}')
    with caplog.at_level("WARNING"):
        assert Scores(path).get(3) is None
    assert f"{path}: 3='high': expected float, found str" in caplog.text
