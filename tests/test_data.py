"""The catalog of data sets, the folder layout, and the held-out split."""

import io

import numpy as np
import pytest
from PIL import Image
from support.data_sets import CLASSES, draw_pair, write_folder

from pyrseg_jax.data.catalog import open_dataset, read_label_space
from pyrseg_jax.data.checks import check_once
from pyrseg_jax.data.datasets import DATASETS
from pyrseg_jax.data.holdout import draw_holdout
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.data.report import make_report
from pyrseg_jax.data.spec import Dataset, DatasetSpec
from pyrseg_jax.errors import UserError

NAMES = ("ade20k", "coco_stuff10k", "pascal_context", "camvid", "scenes", "endless_scenes")
IN_PLACE = ("pascal_voc", "cityscapes", "folder")

# --- the catalog


def test_the_catalog_knows_classes_and_published_sizes_without_any_files():
    assert [read_label_space(name, None).num_classes for name in NAMES] == [150, 171, 59, 11, 12, 12]
    counts = {name: spec.num_training_images for name, spec in DATASETS.items()}
    assert counts == dict(zip(NAMES, (20_210, 9_000, 4_998, 367, 256, 1_000_000), strict=True)) | dict.fromkeys(
        IN_PLACE
    )


class ToySource:
    """Four records that are drawn when they are read."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        encoded = []
        for array, form in zip(draw_pair(np.random.default_rng(index), 32, 48), ("JPEG", "PNG"), strict=True):
            buffer = io.BytesIO()
            Image.fromarray(array).save(buffer, form)
            encoded.append(buffer.getvalue())
        name = f"toy_{index}"
        return {"image": encoded[0], "label": encoded[1], "image_name": name, "label_name": name, "name": name}


TOY_CLASSES = ade_layout(CLASSES)
TOY = DatasetSpec(
    open=lambda location, mapping: Dataset(TOY_CLASSES, "memory", lambda split: ToySource()),
    read_label_space=lambda root: TOY_CLASSES,
    layout="drawn in memory",
    num_images={"training": 4, "validation": 4},
)


def test_a_new_data_set_needs_only_its_spec(monkeypatch, capsys):
    from pyrseg_jax.commands.validate import validate
    from pyrseg_jax.run import config as config_lib

    monkeypatch.setitem(DATASETS, "toy", TOY)
    assert read_label_space("toy", None).num_classes == 3
    dataset = open_dataset("toy", None, None, holdout=1)
    assert [len(dataset.open_split(split)) for split in ("training", "holdout", "validation")] == [3, 1, 4]
    values = config_lib.defaults()
    values.data.name = "toy"
    validate(config_lib.resolve(values))
    printed = capsys.readouterr().out
    assert "training (memory)" in printed and "sky" in printed and "4 images" in printed


# --- the folder layout


def test_folder_lists_pairs_by_name(folder):
    (folder / "images" / "training" / "._training_0.jpg").write_bytes(b"left by a file manager")
    dataset = open_dataset("folder", str(folder), None)
    source = dataset.open_split("training")
    assert [source[i]["name"] for i in range(len(source))] == [f"training_{i}" for i in range(6)]
    assert dataset.label_space.names == CLASSES


def break_folder(folder, what):
    image, label = (
        folder / kind / "training" / f"training_3.{end}" for kind, end in (("images", "jpg"), ("annotations", "png"))
    )
    if what == "no label":
        label.unlink()
    elif what == "no image":
        image.unlink()
    elif what == "two images":
        image.with_suffix(".png").write_bytes(image.read_bytes())
    elif what == "no classes":
        (folder / "classes.txt").unlink()
    elif what == "empty classes":
        (folder / "classes.txt").write_text("\n\n")
    elif what == "gap in classes":
        (folder / "classes.txt").write_text("sky\n\npost\n")
    elif what == "repeated class":
        (folder / "classes.txt").write_text("sky\nground\nsky\n")
    elif what == "binary classes":
        (folder / "classes.txt").write_bytes(b"\xff\xfe\x00s")
    elif what == "no split":
        (folder / "annotations" / "training").rename(folder / "annotations" / "train")
    elif what == "empty split":
        for path in (folder / "images" / "training").iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no label", r"training_3\.jpg has no label: expected .*annotations/training/training_3\.png"),
        ("no image", r"training_3\.png has no image: expected .*images/training/training_3\.jpg"),
        ("two images", r"training_3\.(jpg|png) and training_3\.(png|jpg) differ only in the file extension"),
        ("no classes", r"classes\.txt is missing: write one class name per line"),
        ("empty classes", r"classes\.txt is empty"),
        ("gap in classes", r"classes\.txt: line 2 is empty"),
        ("repeated class", r"classes\.txt: line 3 repeats the class 'sky'"),
        ("binary classes", r"classes\.txt is not UTF-8"),
        ("no split", r"annotations/training is missing: the folder layout is"),
        ("empty split", r"images/training contains no images"),
    ],
)
def test_a_wrong_layout_is_explained(folder, what, message):
    break_folder(folder, what)
    with pytest.raises(UserError, match=message):
        open_dataset("folder", str(folder), None).open_split("training")


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        (
            "folders",
            None,
            "^name='folders': expected one of ade20k, coco_stuff10k, pascal_context, camvid, pascal_voc, cityscapes",
        ),
        ("folder", None, "^root is not set"),
        ("folder", "missing", "^root=.*missing: there is no such folder"),
    ],
)
def test_a_data_set_that_cannot_be_opened_is_explained(tmp_path, name, root, message):
    with pytest.raises(UserError, match=message):
        open_dataset(name, root and str(tmp_path / root), None)


# --- the held-out split


def names_of(source) -> list[str]:
    return [source[i]["name"] for i in range(len(source))]


def test_the_holdout_and_the_rest_are_the_training_split(tmp_path):
    root = write_folder(tmp_path / "data", {"training": 12, "validation": 2}, size=(8, 8))
    whole = names_of(open_dataset("folder", str(root), None).open_split("training"))
    draws = []
    for seed in range(4):
        dataset = open_dataset("folder", str(root), None, holdout=5, holdout_seed=seed)
        kept, held_out = (names_of(dataset.open_split(split)) for split in ("training", "holdout"))
        assert len(held_out) == 5
        assert sorted(kept + held_out) == sorted(whole)
        draws.append(tuple(held_out))
        assert names_of(dataset.open_split("validation")) == ["validation_0", "validation_1"]
    assert len(set(draws)) == 4
    # The paper's numbers depend on the draw: it must never change.
    assert draw_holdout(12, 5, 0)[1] == [3, 4, 7, 9, 10]


def test_the_holdout_is_spread_over_the_training_split():
    training, held_out = draw_holdout(20_210, 4_042, 0)
    assert sorted(training + held_out) == list(range(20_210))
    shares = np.histogram(held_out, 10, (0, 20_210))[0] / 2021
    assert shares.min() > 0.17 and shares.max() < 0.23


def test_a_held_out_file_that_changes_is_checked_again(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dataset = open_dataset("folder", str(folder), None, holdout=2)
    kept, held_out = dataset.open_split("training"), dataset.open_split("holdout")
    for source in (kept, held_out):
        check_once(source, dataset.label_space, "x")
    (folder / "annotations" / "training" / f"{held_out[1]['name']}.png").write_bytes(b"")
    check_once(kept, dataset.label_space, "training")
    with pytest.raises(UserError, match=rf"{held_out[1]['name']}\.png cannot be decoded as an image \(it is empty\)"):
        check_once(held_out, dataset.label_space, "holdout")


@pytest.mark.parametrize(
    ("holdout", "message"),
    [
        (6, r"^holdout=6: the training split has 6 images.*take at most 5"),
        (0, r"the split 'holdout' is empty: set holdout=N"),
    ],
)
def test_an_impossible_holdout_is_explained(folder, holdout, message):
    with pytest.raises(UserError, match=message):
        open_dataset("folder", str(folder), None, holdout=holdout).open_split("holdout")


# --- reports and checks of files


def test_a_report_counts_and_collects_every_problem(folder):
    dataset = open_dataset("folder", str(folder), None)
    labels = [np.asarray(Image.open(folder / "annotations" / "training" / f"training_{i}.png")) for i in range(6)]
    (folder / "images" / "training" / "training_1.jpg").write_bytes(b"broken")
    Image.fromarray(labels[4] * 9).save(folder / "annotations" / "training" / "training_4.png")
    found = make_report(dataset.open_split("training"), dataset.label_space, "training")
    kept = np.stack([labels[i] for i in (0, 2, 3, 5)])
    assert found.num_images == 4
    np.testing.assert_array_equal(found.pixels, [(kept == value).sum() for value in (1, 2, 3)])
    assert found.num_void == (kept == 0).sum()
    assert [index for index, _ in found.problems] == [1, 4]
    assert "training_1.jpg" in found.problems[0][1] and "training_4.png" in found.problems[1][1]


def test_files_are_checked_once_and_again_when_they_change(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dataset = open_dataset("folder", str(folder), None)
    source = dataset.open_split("training")
    check_once(source, dataset.label_space, "training")
    with monkeypatch.context() as patch:
        patch.setattr(type(source), "__getitem__", lambda *_: pytest.fail("read again"))
        check_once(source, dataset.label_space, "training")
    label = folder / "annotations" / "training" / "training_2.png"
    Image.fromarray(np.full((48, 64), 8, np.uint8)).save(label)
    with pytest.raises(UserError, match=r"training_2\.png: value 8"):
        check_once(dataset.open_split("training"), dataset.label_space, "training")
