"""Data sets that are read in place, without an import: PASCAL VOC and Cityscapes."""

import functools

import numpy as np
import pytest
from support import label_tools, mask_folders
from support.imports import import_from, label_maps, toy_scenes

from pyrseg_jax.data.catalog import open_dataset, read_label_space
from pyrseg_jax.data.checks import check_once
from pyrseg_jax.data.class_table import read_column
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.formats.pascal_voc import voc_colors

SETS = {
    "pascal_voc": label_tools.write_voc,
    "cityscapes": functools.partial(mask_folders.write_cityscapes, kind="labelIds"),
}


def write(name, root):
    SETS[name](toy_scenes(), root)
    for path in root.glob(
        "JPEGImages/*.png"
    ):  # VOC's photographs are JPEGs by name; the first bytes decide how one is read
        path.rename(path.with_suffix(".jpg"))


@pytest.mark.parametrize("name", SETS)
def test_what_is_read_in_place_is_what_an_import_writes(name, tmp_path):
    write(name, tmp_path / "source")
    dataset = open_dataset(name, str(tmp_path / "source"), None)
    import_from(tmp_path / "source", tmp_path / "data")
    imported = label_maps(tmp_path / "data")
    for split, samples in (("training", toy_scenes().samples[:3]), ("validation", toy_scenes().samples[3:])):
        source = dataset.open_split(split)
        check_once(source, dataset.label_space, split)
        assert len(source) == len(samples)
        for i, sample in enumerate(samples):
            pair = decode_pair(source[i], dataset.label_space)
            np.testing.assert_array_equal(pair.image, sample.image)
            stem = sample.name + ("_leftImg8bit" if name == "cityscapes" else "")
            np.testing.assert_array_equal(pair.label, (imported[stem].astype(int) - 1) % 256)


@pytest.mark.parametrize(("name", "void"), [("pascal_voc", 255), ("cityscapes", 0)])
def test_the_classes_and_their_values(name, void):
    space = read_label_space(name, None)
    assert (space.num_classes, space.void_file_id) == ({"pascal_voc": 21, "cityscapes": 19}[name], void)
    values = np.arange(34 if name == "cityscapes" else 21, dtype=np.uint8)[None]
    train_ids = space.to_train_ids(values, "a file")
    assert (train_ids != 255).sum() == space.num_classes
    np.testing.assert_array_equal(space.to_file_values(train_ids)[train_ids != 255], values[train_ids != 255])


def test_the_colors_of_voc_are_those_of_its_bits():
    table = list(zip(*(read_column("pascal_voc", channel) for channel in ("red", "green", "blue")), strict=True))
    assert voc_colors(21) == table


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("pascal_voc", lambda root: None, r"root=.*/nothing: there is no such file or folder"),
        (
            "pascal_voc",
            lambda root: (root / "SegmentationClass").rename(root / "Masks"),
            r"holds no folder SegmentationClass",
        ),
        (
            "pascal_voc",
            lambda root: (root / "ImageSets/Segmentation/val.txt").unlink(),
            r"has no split 'validation': expected",
        ),
        ("cityscapes", lambda root: None, r"root=.*/nothing: there is no such file or folder"),
        (
            "cityscapes",
            lambda root: (root / "gtFine" / "val").rename(root / "other"),
            r"gtFine/val is missing: the layout is",
        ),
        (
            "cityscapes",
            lambda root: (root / "gtFine/val/town/picture_3_gtFine_labelIds.png").unlink(),
            r"picture_3_leftImg8bit.png has no label: expected .*picture_3_gtFine_labelIds.png",
        ),
    ],
)
def test_what_is_missing_is_one_clear_line(name, damage, message, tmp_path):
    write(name, tmp_path / "source")
    damage(tmp_path / "source")
    root = tmp_path / ("nothing" if "nothing" in message else "source")
    with pytest.raises(UserError, match=message):
        open_dataset(name, str(root), None).open_split("validation")
    with pytest.raises(UserError, match="root is not set"):
        open_dataset(name, None, None)
