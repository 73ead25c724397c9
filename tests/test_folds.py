"""Folds for cross-validation: every image is held out exactly once, and the keys that exclude each other are refused."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.data_sets import CLASSES, write_folder

from pyrseg_jax.commands.validate import validate
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.contents import pack_classes
from pyrseg_jax.data.datasets import DATASETS
from pyrseg_jax.data.holdout import draw_fold, draw_holdout, lost_classes
from pyrseg_jax.data.inspection import inspect_for_training
from pyrseg_jax.data.report import DatasetReport, make_report
from pyrseg_jax.data.spec import Dataset
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment


def names_of(source):
    return [source[i]["name"] for i in range(len(source))]


# --- the division


@given(st.integers(2, 12), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_every_image_lies_in_exactly_one_fold(folds, more, seed):
    num_images = folds + more
    drawn = [draw_fold(num_images, folds, fold, seed) for fold in range(folds)]
    assert sorted(index for _, held_out in drawn for index in held_out) == list(range(num_images))
    sizes = [len(held_out) for _, held_out in drawn]
    assert max(sizes) - min(sizes) <= 1
    for training, held_out in drawn:
        assert training == sorted(training) and held_out == sorted(held_out)
        assert sorted(training + held_out) == list(range(num_images))


@given(st.integers(2, 12), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_fold_0_is_the_holdout_of_as_many_images(folds, more, seed):
    num_images = folds + more
    assert draw_fold(num_images, folds, 0, seed) == draw_holdout(num_images, num_images // folds, seed)


def test_the_folds_never_change():
    """Results of one fold today are pooled with those of another fold tomorrow."""
    assert [draw_fold(12, 3, fold, 0)[1] for fold in range(3)] == [[4, 7, 9, 10], [2, 3, 6, 8], [0, 1, 5, 11]]
    assert draw_fold(12, 3, 0, 1)[1] != draw_fold(12, 3, 0, 0)[1]


def test_a_fold_becomes_the_split_holdout(tmp_path):
    root = write_folder(tmp_path / "data", {"training": 7, "validation": 2}, size=(8, 8))
    whole = names_of(open_dataset("folder", str(root), None).open_split("training"))
    held_out = []
    for fold in range(3):
        dataset = open_dataset("folder", str(root), None, folds=3, fold=fold)
        kept, out = (names_of(dataset.open_split(split)) for split in ("training", "holdout"))
        assert sorted(kept + out) == sorted(whole)
        assert names_of(dataset.open_split("validation")) == ["validation_0", "validation_1"]
        held_out += out
    assert sorted(held_out) == sorted(whole)


# --- the keys


def resolve(**data):
    config = config_lib.defaults()
    config.data.update(data)
    return config_lib.resolve(config)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"folds": 1}, r"config\.data\.folds=1: expected 0, which switches folds off, or at least 2"),
        (
            {"folds": 5, "holdout": 3},
            r"config\.data\.folds=5 and config\.data\.holdout=3 exclude each other: both say which images form the split 'holdout'",
        ),
        ({"folds": 5, "fold": 5}, r"config\.data\.fold=5: expected 0 … 4, because config\.data\.folds=5"),
        ({"fold": 1}, r"config\.data\.fold=1 applies only to folds: set config\.data\.folds=K"),
        ({"folds": -2}, r"config\.data\.folds=-2: expected at least 0"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(data, message):
    with pytest.raises(UserError, match=message):
        resolve(**data)


def test_more_folds_than_images_are_refused(folder):
    config = resolve(name="folder", root=str(folder), folds=7)
    with pytest.raises(UserError, match=r"config\.data\.folds=7: the training split has 6 images.*take at most 6"):
        validate(config)


def test_the_reader_of_an_earlier_configuration_finds_no_folds():
    values = config_lib.to_values(resolve())
    del values["data"]["folds"], values["data"]["fold"]
    assert config_lib.from_json(json.dumps(values)).data.folds == 0


def test_an_experiment_opens_the_fold_of_its_config(folder):
    sources = [
        experiment.open_data(resolve(name="folder", root=str(folder), folds=6, fold=fold).data).open_split("holdout")
        for fold in range(6)
    ]
    assert sorted(name for source in sources for name in names_of(source)) == [f"training_{i}" for i in range(6)]


# --- classes that are lost


@given(st.data())
def test_lost_classes_are_those_that_no_kept_image_shows(data):
    num_images, num_classes = data.draw(st.integers(2, 12)), data.draw(st.integers(1, 20))
    cell = st.integers(0, 1)
    shown = np.array([[data.draw(cell) for _ in range(num_classes)] for _ in range(num_images)], bool)
    kept = data.draw(st.lists(st.integers(0, num_images - 1), min_size=1, unique=True))
    report = report_of(shown)
    expected = [c for c in range(num_classes) if shown[:, c].any() and not shown[kept, c].any()]
    assert lost_classes(report, kept) == expected
    assert lost_classes(dataclasses.replace(report, contents=[]), kept) == []


def report_of(shown):
    """Make a report that knows which classes each image shows, as (N, C) truth values."""
    report = DatasetReport.empty(shown.shape[1])
    report.sizes[8, 8] = len(shown)
    report.contents = [(i, pack_classes(row)) for i, row in enumerate(shown)]
    return report


def test_a_hint_names_the_classes_that_the_training_part_of_a_prepared_set_lacks(folder, monkeypatch):
    files = open_dataset("folder", str(folder), None)
    source, label_space = files.open_split("training"), files.label_space
    report = make_report(source, label_space, "training")
    held_out = draw_fold(6, 3, 1, 0)[1]
    report.contents = [(i, pack_classes(np.array([True, True, i in held_out]))) for i in range(6)]

    class Records:  # of a prepared set, whose files were checked before
        def __len__(self):
            return len(source)

        def __getitem__(self, index):
            return source[index]

    prepared = Dataset(label_space, "prepared", lambda split: Records(), {"training": report, "validation": report})
    spec = dataclasses.replace(DATASETS["folder"], open=lambda location, mapping: prepared)
    monkeypatch.setitem(DATASETS, "folder", spec)
    said = [inspect_for_training(open_dataset("folder", None, None, folds=3, fold=f), "validation") for f in (0, 1)]
    hint = f"1 of 3 classes are shown by held-out images alone, so they cannot be learned: {CLASSES[2]}"
    assert [("training", hint) in lines for lines in said] == [False, True]
