"""What looks like a mistake in a data set is said by validate, training and evaluation alike."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import call
from support.data_sets import write_folder

from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.inspection import inspect_for_evaluation, inspect_for_training
from pyrseg_jax.errors import UserError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path) -> Path:
    return write_folder(tmp_path / "data", {"training": 12, "validation": 4}, size=(16, 24))


def hints_of(root, inspect=inspect_for_training) -> list[tuple[str, str]]:
    return inspect(open_dataset("folder", str(root), None), "validation")


def one(found: list[tuple[str, str]], split: str, text: str) -> str:
    (hint,) = [hint for name, hint in found if name == split and text in hint]
    return hint


def relabel(root, change, split="*") -> None:
    for path in (root / "annotations").glob(f"{split}/*.png"):
        Image.fromarray(change(np.asarray(Image.open(path))).astype(np.uint8)).save(path)


def test_a_good_set_has_no_hints(data):
    assert hints_of(data) == hints_of(data, inspect_for_evaluation) == []


def test_labels_counted_from_zero_are_pointed_out_before_training(data):
    relabel(data, lambda values: np.maximum(values, 1) - 1)
    for inspect in (inspect_for_training, inspect_for_evaluation):
        hint = one(hints_of(data, inspect), "validation", "the labels look shifted")
        assert "set first_value=0 and void_value=255" in hint


def test_a_training_without_labels_ends_before_it_starts(data, tmp_path):
    relabel(data, np.zeros_like, "training")
    with pytest.raises(
        UserError, match=r"data \(training\): nothing can be learned, because all 12 label maps are void ev"
    ):
        hints_of(data)
    assert hints_of(data, inspect_for_evaluation) == []
    done = call(
        *("train", f"--workdir={tmp_path / 'run'}", "--config=scenes", "--config.data.name=folder"),
        f"--config.data.root={data}",
    )
    assert done.returncode == 1 and "the values found are 0; expected 0 (void) or 1 … 3" in done.stderr
    assert "config.data.first_value=N" in done.stderr and not (tmp_path / "run").exists()
    relabel(data, np.zeros_like, "validation")
    assert "all 4 label maps are void everywhere" in one(
        hints_of(data, inspect_for_evaluation), "validation", "nothing is labeled"
    )


def test_classes_that_are_only_in_validation_are_named(data):
    relabel(data, lambda values: np.where(values == 3, 2, values), "training")
    found = hints_of(data)
    assert one(found, "training", "have no pixels").endswith("1 of 3 classes have no pixels: post")
    assert one(found, "validation", "cannot be learned: post")


def test_lines_of_the_list_of_classes_that_shift_the_others_are_pointed_out(data):
    names = data / "classes.txt"
    names.write_text("0 sky\n1 ground\n2 post\n")
    for inspect in (inspect_for_training, inspect_for_evaluation):
        hint = one(hints_of(data, inspect), "validation", "begin with numbers")
        assert hint.endswith("the class '0 sky' has the value 1")
    names.write_text("1: sky\n2: ground\n3: post\n")
    assert hints_of(data) == []
    names.write_text("2 legs\n4 legs\nno legs\n")
    assert hints_of(data) == []
    names.write_text("# classes\nsky\nground\npost\n")
    assert "so a comment shifts all that follow" in one(
        hints_of(data), "training", "'# classes' (value 1) begins with #"
    )


def test_pictures_of_both_splits_are_counted(data):
    for i in (1, 2):
        shutil.copy(
            data / "images" / "training" / f"training_{i}.jpg", data / "images" / "validation" / f"validation_{i}.jpg"
        )
    hint = one(hints_of(data), "validation", "2 of 4 images are also in the training split")
    assert "validation_1.jpg, which equals" in hint and "training_1.jpg" in hint
    assert hints_of(data, inspect_for_evaluation)  # the training split was read by then


def test_photographs_that_exif_turns_are_pointed_out_if_the_label_fits_both_ways(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for size, is_said in (((16, 16), True), ((16, 24), False)):
        root = write_folder(tmp_path / str(size), {"training": 12, "validation": 2}, size=size)
        for i in (3, 5):
            path = root / "images" / "training" / f"training_{i}.jpg"
            Image.open(path).save(path, exif=exif)
        found = [hint for _, hint in hints_of(root) if "EXIF orientation" in hint]
        assert bool(found) == is_said
        assert not found or ("2 photographs were" in found[0] and "training_3.jpg" in found[0])


def test_copies_and_equal_labels_are_pointed_out(data):
    images, labels = (data / kind / "training" for kind in ("images", "annotations"))
    for i in range(6):
        shutil.copy(images / "training_11.jpg", images / f"training_{i}.jpg")
        shutil.copy(labels / "training_11.png", labels / f"training_{i}.png")
    assert "6 of 12 images are copies of others" in one(hints_of(data), "training", "copies")
    shutil.copy(labels / "training_10.png", labels / "training_3.png")
    assert one(hints_of(data), "training", "1 image occurs more than once with different label maps")
    for i in (*range(10), 11):
        shutil.copy(labels / "training_10.png", labels / f"training_{i}.png")
    assert one(hints_of(data), "training", "all 12 label maps are equal")


def test_files_passed_over_are_named(data):
    folder = data / "images" / "training"
    (folder / "city").mkdir()
    for name in ("a.heic", "._a.jpg", "notes.txt", os.fsdecode(b"caf\xe9.xyz")):
        (folder / name).write_bytes(b"")
    (data / "annotations" / "training" / "a.npy").write_bytes(b"")
    for inspect in (inspect_for_training, inspect_for_evaluation):
        found = inspect(open_dataset("folder", str(data), None), "training")
        hint = one(found, "training", "images/training: ")
        notes = (
            "1 folder (city)",
            "1 .heic file (HEIC is not read: convert it to JPEG)",
            "1 hidden file",
            "1 .txt file",
        )
        assert all(note in hint for note in notes) and hint.endswith("are passed over")
        assert one(found, "training", "annotations/training: 1 .npy file is passed over")


def test_validate_prints_hints_and_escapes_names(data, tmp_path):
    evil = "x\nerror: forged\x1b[2J\u202e"
    for kind, end in (("images", "jpg"), ("annotations", "png")):
        (data / kind / "training" / f"{evil}.{end}").write_bytes(b"broken")
    (data / "images" / "training" / f"folder{evil}").mkdir()
    done = call("validate", "--config=scenes", "--config.data.name=folder", f"--config.data.root={data}")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    (problem,) = [line for line in lines if line.startswith("problem: ")]
    assert r"x\nerror: forged\x1b[2J\u202e" in problem
    assert any(line.startswith("hint (training): ") and "1 folder (folderx\\nerror" in line for line in lines)
    assert not any(line.startswith("error: forged") for line in lines)
    assert "\x1b" not in done.stdout and "\u202e" not in done.stdout
