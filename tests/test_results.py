"""Results of evaluations: what identifies them, that none is lost, and that what cannot be written or drawn costs nothing else."""

import dataclasses
import errno
import json
import os
import shutil

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.command_line import call, error_of
from support.data_sets import CLASSES, write_folder
from support.runs import STEP, tiny_config, write_run

from pyrseg_jax.commands import evaluate as evaluate_command
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.batches import evaluation_batches
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.reporting.evaluation_table import evaluation_table
from pyrseg_jax.reporting.logbook import Logbook
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import evaluations
from pyrseg_jax.run.results import Naming, Results
from pyrseg_jax.run.workdir import Workdir

# --- the fingerprint of a data set


def digests_of(root, batch_size=2, **settings):
    dataset = open_dataset("folder", str(root), None, **settings)
    source = dataset.open_split("validation")
    batches = evaluation_batches(source, dataset.label_space, Protocol().sizes, batch_size)
    return sorted(digest for batch in batches for digest in batch.digests)


def test_a_copy_of_a_data_set_has_the_same_digests_and_a_changed_one_has_not(tmp_path, folder):
    before = digests_of(folder)
    assert len(set(before)) == 3
    shutil.copytree(folder, tmp_path / "copy")
    assert digests_of(tmp_path / "copy", batch_size=3) == before
    label = tmp_path / "copy" / "annotations" / "validation" / "validation_1.png"
    values = np.asarray(Image.open(label)).copy()
    Image.fromarray(values).save(label, optimize=True)  # other bytes, the same label map
    assert digests_of(tmp_path / "copy") == before
    values[3, 4] = 3
    Image.fromarray(values).save(label)
    assert len(set(digests_of(tmp_path / "copy")) - set(before)) == 1
    with (folder / "images" / "validation" / "validation_0.jpg").open("ab") as image:
        image.write(b"\0")
    assert len(set(digests_of(folder)) - set(before)) == 1


# --- names


def result_of(step, protocol, fingerprint, miou=0.5, split="validation", analysis=None):
    """Return a result as an evaluation makes it, as far as its file name depends on it."""
    return {
        "miou": miou,
        "confusion": [[3, 1], [0, 4]],
        "level_miou": analysis,
        "seconds": 1.0,
        "images": 2,
        "step": step,
        "protocol": {"name": protocol, "threshold": 0.5, "initialisation": "random"},
        "data": {"name": "folder", "split": split, "place": "/x", "images": 2, "fingerprint": fingerprint},
    }


def identity_of(result):
    data = result["data"]
    return data["split"], result["step"], result["protocol"]["name"], data["fingerprint"]


PRINTS = [letter * 64 for letter in "abc"] + ["a" * 8 + "b" * 56]  # the last one begins like the first
EVALUATIONS = st.lists(
    st.tuples(
        st.sampled_from((3, 12)),
        st.sampled_from(("single", "hrnet")),
        st.sampled_from(PRINTS),
        st.sampled_from(("validation", "../x", "holdout-3")),
        st.booleans(),
        st.booleans(),
        st.floats(0, 1),
    ),
    max_size=12,
)


@given(EVALUATIONS)
def test_a_result_replaces_only_one_of_the_same_identity(tmp_path_factory, evaluated):
    """The law: after any sequence of evaluations, the last result of every identity is there, and in one file."""
    folder = tmp_path_factory.mktemp("run") / "evaluation"
    stored, last = Results(epath.Path(folder)), {}
    for step, protocol, fingerprint, split, is_own_protocol, is_own_data, miou in evaluated:
        result = result_of(step, protocol, fingerprint, miou, split)
        path = stored.write(result, Naming(protocol, "folder", is_own_protocol, is_own_data))
        assert path.parent == folder
        assert identity_of(json.loads(path.read_text())) == identity_of(result)
        last[identity_of(result)] = miou
    files = sorted(folder.iterdir()) if folder.exists() else []
    found = [json.loads(file.read_text()) for file in files]
    assert {identity_of(result): result["miou"] for result in found} == last
    assert len(found) == len(last)


def test_the_name_says_what_differs_from_the_run(tmp_path):
    stored = Results(epath.Path(tmp_path / "evaluation"))
    for own_protocol, own_data, name in (
        (True, True, "validation-6.json"),
        (False, True, "validation-6-hrnet.json"),
        (True, False, "validation-6-city-bbbbbbbb.json"),
        (False, False, "validation-6-hrnet-city-bbbbbbbb.json"),
    ):
        protocol, fingerprint = "single" if own_protocol else "hrnet", ("a" if own_data else "b") * 64
        result = result_of(6, protocol, fingerprint)
        assert stored.write(result, Naming(protocol, "city", own_protocol, own_data)).name == name
    # The data of the run has changed in place: the result before stays.
    assert stored.write(result_of(6, "single", "c" * 64), Naming("single", "city", True, True)).name == (
        "validation-6-city-cccccccc.json"
    )


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"miou": 7}', b'{"a": 1, "a": 2}', b"\xff", b'{"miou": "high"}']
)
def test_a_file_that_is_not_a_result_is_left_as_it_is(tmp_path, content, caplog):
    (tmp_path / "validation-6.json").write_bytes(content)
    stored = Results(epath.Path(tmp_path))
    path = stored.write(result_of(6, "single", "a" * 64), Naming("single", "folder", True, True))
    assert path.name == "validation-6-single-folder-aaaaaaaa.json"
    stored.drop_after(0)
    assert [file.name for file in tmp_path.iterdir()] == ["validation-6.json"]
    assert (tmp_path / "validation-6.json").read_bytes() == content
    assert "validation-6.json: " in caplog.text
    assert "it is left as it is" in caplog.text


def test_a_result_of_an_earlier_version_counts_as_the_same_if_it_counted_the_same_pixels(tmp_path):
    stored, now = Results(epath.Path(tmp_path)), result_of(6, "single", "a" * 64, 0.5)
    naming = Naming("single", "folder", True, True)
    before = {key: value for key, value in now.items() if key != "data"}
    path = tmp_path / "validation-6.json"
    path.write_text(json.dumps(before))
    assert stored.write(now, naming) == path
    path.write_text(json.dumps(before | {"confusion": [[2, 1], [0, 4]]}))
    assert stored.write(now, naming).name == "validation-6-folder-aaaaaaaa.json"


def test_the_log_says_which_result_is_replaced_and_an_analysis_is_kept(tmp_path, caplog):
    stored, naming = Results(epath.Path(tmp_path)), Naming("single", "folder", True, True)
    with caplog.at_level("INFO"):
        path = stored.write(result_of(6, "single", "a" * 64, analysis=[[0.5]]), naming)
        stored.write(result_of(6, "single", "a" * 64, analysis=[[0.5]]) | {"seconds": 2.0}, naming)
        assert not caplog.text
        stored.write(result_of(6, "single", "a" * 64), naming)
        assert "holds the same scores already, with the analysis: it stays as it is" in caplog.text
        assert json.loads(path.read_text())["level_miou"] == [[0.5]]
        stored.write(result_of(6, "single", "a" * 64, miou=0.75), naming)
        assert "replaces an earlier result that differs in miou" in caplog.text


@given(st.text(min_size=1, max_size=20))
def test_a_name_with_brackets_comes_back_from_the_file(tmp_path_factory, name):
    name = f"{name} [a  b]\n[1,\n  2]"
    folder = epath.Path(tmp_path_factory.mktemp("run"))
    path = Results(folder).write(
        result_of(6, "single", "a" * 64) | {"iou": {name: 0.5}}, Naming("single", "x", True, True)
    )
    found = json.loads(path.read_text())
    assert found["iou"] == {name: 0.5}
    assert "[ 3, 1 ]" in path.read_text()


# --- the command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a checkpoint, and the data set of its configuration."""
    place = tmp_path_factory.mktemp("results")
    root = write_folder(place / "data", {"training": 1, "validation": 3})
    config = tiny_config(context="none", strides=(8, 4))
    data = dataclasses.replace(config.data, root=str(root))
    evaluation = dataclasses.replace(config.evaluation, batch_size=2, analysis=False)
    write_run(place / "run", dataclasses.replace(config, data=data, evaluation=evaluation), CLASSES)
    return place / "run"


@pytest.fixture
def workdir(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def names_in(workdir):
    return sorted(file.name for file in (workdir / "evaluation").iterdir())


def test_a_second_evaluation_never_replaces_another_one(workdir, run, tmp_path):
    """Another threshold, another data set, both, and the run's own data set at another place."""
    shutil.copytree(run.parent / "data", tmp_path / "moved")
    other = write_folder(tmp_path / "other", {"training": 1, "validation": 3}, seed=1)
    tau, root = "--config.evaluation.threshold=0.3", "--config.data.root="
    for flags in ([], [tau], [f"{root}{other}"], [tau, f"{root}{other}"], [f"{root}{tmp_path / 'moved'}"]):
        assert call("evaluate", f"--workdir={workdir}", *flags).returncode == 0
    found = names_in(workdir)
    fingerprint = json.loads((workdir / "evaluation" / found[0]).read_text())["data"]["fingerprint"]
    assert found == [
        f"validation-{STEP}-folder-{fingerprint[:8]}.json",
        f"validation-{STEP}-single-threshold0.3-folder-{fingerprint[:8]}.json",
        f"validation-{STEP}-single-threshold0.3.json",
        f"validation-{STEP}.json",
    ]
    result = json.loads((workdir / "evaluation" / found[3]).read_text())
    assert result["data"]["place"] == str(tmp_path / "moved")
    assert result["data"]["name"] == "folder"
    assert result["data"]["images"] == result["images"] == 3
    assert result["protocol"]["long_side_px"] == 2048


def test_the_table_is_printed_before_anything_is_written(workdir):
    """The command says at its start that it cannot write, prints the table, and ends with status 1."""
    (workdir / "evaluation").write_text("a file where the folder should be")
    done = call("evaluate", f"--workdir={workdir}")
    assert done.returncode == 1
    assert "over the 3 classes present" in done.stdout
    said = done.stderr.splitlines()
    first = next(i for i, line in enumerate(said) if "the result will be printed, but not stored" in line)
    assert first < next(i for i, line in enumerate(said) if "evaluating step" in line)
    assert f"validation-{STEP}.json cannot be written" in error_of(done)


def test_a_closed_pipe_costs_the_table_and_not_the_result(workdir, monkeypatch):
    def closed(_):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(evaluate_command, "print_table", closed)
    assert call("evaluate", f"--workdir={workdir}").returncode != 0
    assert names_in(workdir) == [f"validation-{STEP}.json"]


@pytest.mark.parametrize(
    "error", [ValueError("Expected end of text, found '$'"), MemoryError(), OSError(28, "No space")]
)
def test_a_figure_that_fails_costs_the_figure(workdir, monkeypatch, caplog, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(evaluations, "draw_analysis", fail)
    config = tiny_config()
    result = {"confusion": [[1]]}
    evaluations.draw_evaluation(config, Workdir(str(workdir)), epath.Path("validation-6.json"), result)
    assert "figures could not be drawn (" in caplog.text
    assert "the scores are complete without them" in caplog.text


def test_other_classes_than_those_of_the_network_are_one_clear_line(workdir, run, tmp_path):
    shutil.copytree(run.parent / "data", tmp_path / "data")
    (tmp_path / "data" / "classes.txt").write_text("\n".join([*CLASSES, "fourth"]))
    classes = json.loads((workdir / "classes.json").read_text())
    classes |= {"names": [*CLASSES, "fourth"], "file_ids": [1, 2, 3, 4]}
    (workdir / "classes.json").write_text(json.dumps(classes))
    done = call("evaluate", f"--workdir={workdir}", f"--config.data.root={tmp_path / 'data'}")
    assert "an array has the shape" in error_of(done)
    assert "they belong to another network than the one configured" in error_of(done)


def test_a_folder_that_cannot_be_written_is_found_before_the_data_is_read(tmp_path):
    (tmp_path / "file").write_text("")
    flags = ["--config.data.name=folder", f"--config.data.root={tmp_path / 'absent'}"]
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        message = error_of(call("train", f"--workdir={workdir}", *flags))
        assert message.startswith(f"error: {tmp_path / 'file'} cannot be written (Not a directory)")


def test_nothing_is_created_by_asking_whether_a_folder_can_be_written(tmp_path, workdir):
    before = sorted(path.name for path in workdir.rglob("*"))
    Workdir(str(workdir)).check_writable(for_training=True)
    Workdir(str(tmp_path / "new" / "run")).check_writable(for_training=True)
    assert sorted(path.name for path in workdir.rglob("*")) == before
    assert not (tmp_path / "new").exists()
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "checkpoints").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="checkpoints cannot be written"):
        Workdir(str(workdir)).check_writable(for_training=True)


METRICS = {"loss": 1.0, "images_per_second": 1.0, "data_wait_share": 0.0}


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_removed_workdir_ends_a_training_and_is_not_brought_back(tmp_path, workdir, is_replaced):
    logbook = Logbook(workdir, 10, 4)
    logbook.write_step(1, METRICS)
    workdir.rename(tmp_path / "elsewhere")
    if is_replaced:
        workdir.mkdir()
        (workdir / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"metrics\.jsonl was removed or replaced while this training wrote to it"):
        logbook.write_step(2, METRICS)
    with pytest.raises(UserError, match="was removed or replaced"):
        logbook.sync()  # which comes before every checkpoint
    logbook.close()
    if not is_replaced:
        with pytest.raises(UserError, match="was removed while a command was writing to it"):
            evaluations.write_result({}, config_lib.Config(), Workdir(str(workdir)))
        assert not workdir.exists()


def test_a_table_shows_class_names_escaped():
    result = dict.fromkeys(("miou", "miou_all_classes", "best_constant_miou", "pixel_accuracy", "mean_accuracy"), 0.5)
    result |= {"iou": {"a\nerror: forged\x1b[2J": 0.5}, "classes_averaged": 1, "boundary_px": 8, "boundary_miou": 0.5}
    result |= {"level_share": [1.0], "cells_per_image": 1.0, "pixels_per_image": 1.0, "level_miou": None}
    means = ("mean_dice", "mean_precision", "frequency_weighted_iou", "image_miou", "class_image_miou")
    result |= dict.fromkeys(("dice", "precision", "recall", "image_iou"), result["iou"]) | dict.fromkeys(means, 0.25)
    assert evaluation_table(result).splitlines()[1].startswith(r"a\nerror: forged\x1b[2J   50.00   50.00")
