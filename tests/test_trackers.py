"""Trackers get the whole record of a run, and whatever they do, the training neither stops nor waits for them."""

import json
import logging
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import TINY, call, error_of
from support.data_sets import CLASSES
from tensorboardX.proto.event_pb2 import Event

from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.metrics import class_scores, scores
from pyrseg_jax.reporting.evaluation_values import SCORES, values_of_evaluation
from pyrseg_jax.reporting.logbook import Logbook
from pyrseg_jax.reporting.trackers import TRACKERS, Tracker, check_installed, forwarding, read_names
from pyrseg_jax.reporting.trackers.forwarding import Tracked, Trackers
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.training.scores import METRICS

TRACKED = Tracked(("fake",), "streets", {"training.steps": 4}, CLASSES)
VALUES = {"loss": 1.5, "images_per_second": 2.0, "data_wait_share": 0.1}
RESULT = scores(np.diag([3, 2, 1]), CLASSES) | class_scores(np.diag([3, 2, 1]), CLASSES)
RESULT |= {"level_share": [0.25, 0.75], "loss": 0.5, "images": 3, "seconds": 1.0}


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A tracker for tests; the function returns what it has got."""
    monkeypatch.setitem(TRACKERS, "fake", Tracker("a fake", "json", "fake", "support.fake_tracker"))
    log = tmp_path / "fake.jsonl"
    monkeypatch.setenv("FAKE_TRACKER_LOG", str(log))
    monkeypatch.delenv("FAKE_TRACKER", raising=False)
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def record(workdir, steps, first_step=0, tracked=TRACKED):
    """Record steps, and an evaluation after the last one, as a training does."""
    workdir.mkdir(exist_ok=True)
    logbook = Logbook(workdir, 4, 2, first_step, tracked)
    for step in steps:
        logbook.write_step(step, VALUES | {"loss": float(step)})
    logbook.write_evaluation(steps[-1], RESULT)
    logbook.draw(steps[-1], {"predictions/1": Image.new("RGB", (30, 20), "red")})
    logbook.close()


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def read_tensorboard(folder: Path) -> list[Event]:
    """Read events: each is a length in 8 bytes, a checksum in 4, the message, and a checksum in 4."""
    events = []
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            events.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
    return events


def test_every_score_of_an_evaluation_is_written():
    assert set(SCORES) == set(METRICS)
    found = values_of_evaluation(RESULT | dict.fromkeys(SCORES, 0.5))
    assert {f"evaluation/{name}" for name in METRICS} <= found.keys()
    assert found["iou/sky"] == 1.0
    assert (found["evaluation/level_share_1"], found["evaluation/level_share_2"]) == (0.25, 0.75)
    assert values_of_evaluation({"miou": None, "iou": {"sky": None}, "level_share": []}) == {}


def test_a_tracker_gets_what_tensorboard_gets_and_a_resumed_run_continues(fake, tmp_path, caplog):
    record(tmp_path / "run", (1, 2))
    # The two parts end in the same second, after which TensorBoard's files are named.
    first, first_events = fake(), read_tensorboard(tmp_path / "run" / "tensorboard")
    assert [line["kind"] for line in first] == ["open", "write", "write", "write", "draw", "close"]
    assert (first[0]["run"], first[0]["name"], first[0]["steps"]) == (None, "streets", 4)
    assert not first[-1]["is_finished"]
    record(tmp_path / "run", (3, 4), first_step=2)
    second, second_events = fake()[len(first) :], read_tensorboard(tmp_path / "run" / "tensorboard")
    assert [line["kind"] for line in second] == ["open", "write", "write", "write", "draw", "close"]
    assert second[0]["run"] == f"run of {first[0]['id']}", "the run must be continued, and nothing delivered twice"
    assert second[-1]["is_finished"]
    assert warnings_in(caplog) == []
    written = set()
    for line in fake():
        if line["kind"] == "write":
            written |= {(name, line["step"], value) for name, value in line["values"].items()}
    summaries = [(event.step, value) for event in first_events + second_events for value in event.summary.value]
    shown = {(value.tag, step, value.simple_value) for step, value in summaries if not value.HasField("image")}
    assert {(name, step, np.float32(value)) for name, step, value in written} == shown
    assert ("training/loss", 4, 4.0) in shown
    pictures = {(value.tag, step) for step, value in summaries if value.HasField("image")}
    assert pictures == {("predictions/1", 2), ("predictions/1", 4)}


def test_a_tracker_that_raises_is_tried_again_and_warned_about_once(fake, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(forwarding, "LOOK_EVERY_S", 0.0)
    monkeypatch.setenv("FAKE_TRACKER", "raise:write")
    trackers = Trackers(TRACKED, tmp_path / "tracking")
    for _ in range(60):
        trackers.write(1, VALUES)
        if warnings_in(caplog):
            break
        time.sleep(0.1)
    trackers.write(2, VALUES)
    trackers.close(is_finished=True)
    first, last = warnings_in(caplog)
    assert first.startswith(
        "the tracker fake failed (ConnectionError: no route to the tracker): it is tried again; the training goes on"
    )
    assert "has not delivered" in last and "start the same command again to deliver them" in last
    assert "Traceback" in (tmp_path / "tracking" / "fake.log").read_text()
    # The next part of the run delivers what is missing.
    monkeypatch.delenv("FAKE_TRACKER")
    Trackers(TRACKED, tmp_path / "tracking").close(is_finished=True)
    steps = [line["step"] for line in fake() if line["kind"] == "write"]
    assert steps == sorted(steps) and set(steps) == {1, 2}


def test_a_tracker_that_hangs_costs_a_training_no_more_than_the_wait_at_its_end(fake, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(forwarding, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(forwarding, "STUCK_S", 0.5)
    monkeypatch.setenv("FAKE_TRACKER", "hang:open")
    trackers = Trackers(TRACKED, tmp_path / "tracking", close_s=0.5)
    (child,) = trackers.processes()
    start = time.monotonic()
    for step in range(2000):
        trackers.write(step, VALUES)
    assert time.monotonic() - start < 5
    time.sleep(0.6)
    trackers.look()
    trackers.look()
    start = time.monotonic()
    trackers.close(is_finished=False)
    assert time.monotonic() - start < 5
    assert child.poll() is not None
    stuck, missed = warnings_in(caplog)
    assert stuck.startswith("the tracker fake has not answered for 0 s: ") or "has not answered" in stuck
    assert "has not delivered 2001 of the last events" in missed


@pytest.mark.parametrize(
    ("behavior", "message"),
    [
        ("die:write", r"has ended (exit status -9): it is off"),
        ("broken", "failed (ImportError: this library is broken): it is off"),
    ],
)
def test_a_tracker_that_dies_is_off(fake, tmp_path, monkeypatch, caplog, behavior, message):
    monkeypatch.setenv("FAKE_TRACKER", behavior)
    trackers = Trackers(TRACKED, tmp_path / "tracking")
    trackers.write(1, VALUES)
    (child,) = trackers.processes()
    child.wait(30)
    trackers.look()
    trackers.write(2, VALUES)
    trackers.close(is_finished=False)
    first, last = warnings_in(caplog)
    assert f"the tracker fake {message}" in first
    assert "has not delivered 3 of the last events" in last


def test_a_training_that_is_killed_leaves_no_process(fake, tmp_path):
    trackers = Trackers(TRACKED, tmp_path / "tracking")
    (child,) = trackers.processes()
    trackers.write(1, VALUES)
    child.stdin.close()  # as the end of this process does
    child.wait(30)
    assert [line["kind"] for line in fake()] == ["open", "write", "close"]
    trackers.close(is_finished=False)


def test_a_full_disk_turns_trackers_off(fake, tmp_path, caplog):
    (tmp_path / "tracking").write_text("a file where the folder should be")
    trackers = Trackers(TRACKED, tmp_path / "tracking")
    trackers.write(1, VALUES | {"loss": float("nan")})
    trackers.draw(1, {"a": Image.new("RGB", (8, 8))})
    trackers.close(is_finished=True)
    assert "trackers are off" in warnings_in(caplog)[0]
    assert fake() == []


def test_names_of_trackers():
    assert read_names(None) == read_names("") == ()
    assert read_names("wandb, mlflow,wandb") == ("wandb", "mlflow")
    with pytest.raises(
        UserError, match=r"trackers=wandb,neptun: neptun is not a tracker: expected some of mlflow, wandb, tr"
    ):
        read_names("wandb,neptun")
    assert read_names("my_package.my_tracker") == ("my_package.my_tracker",)
    config = config_lib.defaults()
    config.training.trackers = "neptun"
    with pytest.raises(UserError, match=r"config.training.trackers=neptun: neptun is not a tracker"):
        config_lib.resolve(config)


def test_a_missing_library_is_an_error_before_anything_is_written(monkeypatch, folder, tmp_path):
    monkeypatch.setitem(TRACKERS, "mlflow", Tracker("MLflow", "a_package_that_nobody_has", "mlflow", "nowhere"))
    done = call(
        "train",
        *TINY,
        f"--config.data.root={folder}",
        f"--workdir={tmp_path / 'run'}",
        "--config.data.workers=0",
        "--config.training.trackers=mlflow",
    )
    with pytest.raises(
        UserError, match=r"trackers=no_package.mine: there is no module no_package.mine: check its name"
    ):
        check_installed(["no_package.mine"])
    assert (
        "config.training.trackers=mlflow: the package a_package_that_nobody_has is not installed: run `pip install "
        "a_package_that_nobody_has` or install the extra `mlflow` (`pip install 'pyrseg-jax[mlflow]'`), or leave out mlflow"
    ) in error_of(done)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlflow", "wandb", "trackio"])
def test_the_libraries_themselves(name, tmp_path, monkeypatch):
    """Write two parts of a run with the real library, and read them back."""
    pytest.importorskip(TRACKERS[name].package)
    monkeypatch.chdir(tmp_path)
    for key, value in {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "TRACKIO_DIR": str(tmp_path / "trackio"),
    }.items():
        monkeypatch.setenv(key, value)
    tracked = TRACKED._replace(
        trackers=(name,), config={"training.steps": 4, "data.root": None, "model.strides": (8, 4)}
    )
    monkeypatch.setattr(forwarding, "CLOSE_S", 120.0)
    for first in (0, 2):
        trackers = Trackers(tracked, tmp_path / "run" / "tracking", close_s=120)
        for step in (first + 1, first + 2):
            trackers.write(step, {"training/loss": float(step), "iou/a class (new)": 0.5})
        trackers.draw(first + 2, {"predictions/1": Image.new("RGB", (30, 20), "red")})
        trackers.close(is_finished=first == 2)
    output = (tmp_path / "run" / "tracking" / f"{name}.log").read_text()
    progress = json.loads((tmp_path / "run" / "tracking" / f"{name}.json").read_text())
    assert progress["problem"] is None, output
    assert progress["offset"] == (tmp_path / "run" / "tracking" / "events.jsonl").stat().st_size, output
    READ_BACK[name](tmp_path, progress["run"])


def _read_mlflow(place, run):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{place}/mlflow.db")
    found = client.get_run(run)
    assert found.info.status == "FINISHED"
    assert found.data.params["training.steps"] == "4"
    assert [(metric.step, metric.value) for metric in client.get_metric_history(run, "training/loss")] == [
        (step, float(step)) for step in (1, 2, 3, 4)
    ]


def _read_wandb(place, run):
    folders = sorted((place / "wandb").glob("offline-run-*"))
    assert folders and all(folder.name.endswith(run) for folder in folders)
    assert len(list((place / "wandb").glob("offline-run-*/files/media/images/**/*.jpg"))) == 2


def _read_trackio(place, run):
    assert list((place / "trackio").rglob("*.db"))
    assert len([file for file in (place / "trackio").rglob("*.jpg") if run in str(file)]) == 2


READ_BACK = {"mlflow": _read_mlflow, "wandb": _read_wandb, "trackio": _read_trackio}
