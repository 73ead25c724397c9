"""JSON files that are read back: whatever is in the file, the answer is the right object or one clear line naming the file."""

import dataclasses
import json
import os

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from support.damaged_json import damaged

from pyrseg_jax.data.label_space import LabelSpace, ade_layout
from pyrseg_jax.data.records import ShardResult, StoredReport, StoredReports
from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.errors import UserError
from pyrseg_jax.export.format import About
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run.results import StoredResult
from pyrseg_jax.run.workdir import Initialization
from pyrseg_jax.storage import documents
from pyrseg_jax.training.checkpoint import About as CheckpointAbout
from pyrseg_jax.training.scores import Scores, StoredScores

SCHEMAS = (LabelSpace, Initialization, About, StoredScores, StoredReports, ShardResult, StoredResult)
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
        ({"names": None}, "names=None: expected a list, found null"),
        ({"names": ["road", 3]}, r"names\[1\]=3: expected str, found int"),
        ({"file_ids": [1.5, 2]}, r"file_ids\[0\]=1\.5: expected int, found float"),
        ({"file_ids": [True, 2]}, r"file_ids\[0\]=True: expected int, found true"),
        ({"file_ids": [1]}, "expected one item of file_ids per class, found 2 names and 1 file_ids"),
        ({"file_ids": [1, 65536]}, "expected values of label files between 0 and 65535"),
        ({"colors": [[300, 0, 0], [0, 0, 0]]}, "expected values of colors between 0 and 255"),
        ({"colors": [[0, 0, 0]]}, "expected one item of colors per class, found 2 names and 1 colors"),
        ({"also": [[65536, 0]]}, "expected pairs of a value between 0 and 65535 and a train id in also"),
        ({"names": [], "file_ids": []}, "expected 1 to 10000 names, found 0"),
        ({"names": ["road"] * 10001, "file_ids": [1] * 10001}, "expected 1 to 10000 names, found 10001"),
        ({"file_ids": [1, 1]}, "expected each name and each of the file_ids once"),
        ({"names": ["road", "road"]}, "expected each name and each of the file_ids once"),
        ({"void_file_id": 2}, "expected void_file_id=2 not to be among the file_ids of the classes"),
        (
            {"names": ["road", "a\nerror: b"]},
            r"expected names without control characters, found the name 'a\\nerror: b'",
        ),
        ({"names": ["road", "\u202e"]}, "expected names without control characters"),
        ({"names": ["road", ""]}, "expected names without control characters, found the name ''"),
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


# --- any damage to one place of a document

ALL_IDS = np.arange(255, dtype=np.uint8)[None]
RESULT = {
    "miou": 0.5,
    "confusion": [[1, 2], [3, 4]],
    "images": 3,
    "step": 6,
    "protocol": {"name": "single", "scales": [1.0]},
    "data": {"name": "folder", "split": "validation", "fingerprint": "a" * 64},
}
DOCUMENTS = {
    "classes": (LabelSpace, dataclasses.asdict(ade_layout(("road", "sky"), colors=((1, 2, 3), (4, 5, 6))))),
    "initialisation": (Initialization, WEIGHTS),
    "scores": (StoredScores, {"3": 0.5, "6": 0.25}),
    "result": (StoredResult, RESULT),
    "checkpoint": (CheckpointAbout, {"checksums": {"variables": {"a": "0"}}, "step": 3}),
}


@pytest.mark.parametrize("name", DOCUMENTS)
@given(data=st.data())
def test_a_damaged_place_gives_the_object_or_one_line(name, data):
    schema, whole = DOCUMENTS[name]
    content = data.draw(damaged(whole))
    try:
        found = documents.parse_json(content, schema, "runs/x/FILE")
    except UserError as error:
        check_line(str(error))
    else:
        assert isinstance(found, schema)
        if schema is LabelSpace:
            assert (
                len(set(found.file_ids))
                == len(found.names)
                == len(found.to_file_values(ALL_IDS[:1, : len(found.names)])[0])
            )


@given(data=st.data())
def test_a_damaged_place_of_a_config_gives_a_config_or_one_line(data):
    content = data.draw(damaged(json.loads(config_lib.to_json(config_lib.Config()))))
    try:
        found = config_lib.from_json(content, "runs/x/FILE")
    except UserError as error:
        check_line(str(error))
    else:
        assert config_lib.from_json(config_lib.to_json(found)) == found


def check_line(message):
    assert message.startswith("runs/x/FILE: ")
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert len(message) < 500


def test_repeated_keys_and_byte_order_marks_are_told(tmp_path):
    with pytest.raises(UserError, match="the key 'file' occurs twice in one object; restore the file"):
        documents.parse_json('{"file": "a", "sha256": "0", "source": "x", "file": "b"}', Initialization, "x")
    path = tmp_path / "file.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(WEIGHTS).encode())
    assert documents.read_json(path, Initialization).root.file == WEIGHTS["file"]


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a folder"])
def test_a_document_that_is_not_a_file_is_refused(tmp_path, kind):
    path = tmp_path / "config.json"
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UserError, match=f"config.json is {kind}: expected a regular file"):
        documents.read_json(path, Initialization)


def test_a_document_that_is_too_large_is_refused(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(UserError, match=r"has 1024 MiB or more, above the limit of 64 MiB"):
        documents.read_json(path, Initialization)


def test_long_names_and_values_of_a_config_are_cut(tmp_path):
    """A damaged config.json may hold anything; the line about it stays short."""
    path = tmp_path / "config.json"
    for values in ({"training": [[0] * 5000]}, {"x" * 10**6: 1}, {"data": {"y" * 10**6: 1}}):
        with pytest.raises(UserError, match=r"^.{1,900}$"):
            config_lib.from_json(json.dumps({"data": {}, "model": {}, "training": {}} | values), str(path))
