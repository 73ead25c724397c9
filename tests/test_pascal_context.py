"""PASCAL-Context from its native files: 459 categories become 59 classes, wherever the photographs and the label maps lie."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.native_files import (
    PASCAL_59,
    mat,
    mat_73,
    tar_folder,
    write_converted_context,
    write_pascal_context,
    zip_folder,
)
from support.reference_networks import mmseg_models

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.datasets import DATASETS, coco_stuff10k, pascal_context
from pyrseg_jax.data.decode import decode_label, decode_pair
from pyrseg_jax.data.download import PublishedFile
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import config_file

SPACE = pascal_context.LABEL_SPACE
SPLITS = {"training": "train", "validation": "val"}


def names_of(source) -> list[str]:
    return [source[i]["name"] for i in range(len(source))]


def train_ids(categories: np.ndarray) -> np.ndarray:
    """Map categories to train ids one by one, by name: the slow twin of the reader's table."""
    ids = {PASCAL_59[name]: i for i, name in enumerate(SPACE.names)}
    return np.vectorize(lambda category: ids.get(int(category), VOID))(categories)


# --- classes


def test_the_59_classes_are_in_alphabetical_order_like_the_categories():
    assert SPACE.num_classes == 59 == len(set(SPACE.names)) == len(set(SPACE.colors))
    assert list(SPACE.names) == sorted(SPACE.names) and SPACE.file_ids == tuple(range(1, 60))
    assert list(pascal_context.CATEGORIES) == sorted(set(pascal_context.CATEGORIES))
    numbers = {"aeroplane": 2, "bag": 9, "bedclothes": 19, "mouse": 260, "table": 397, "tvmonitor": 427, "wood": 458}
    assert numbers.items() <= PASCAL_59.items()
    assert dict(zip(SPACE.names, SPACE.colors, strict=True))["aeroplane"] == (128, 0, 0)  # as in PASCAL VOC


def test_stuff_is_what_coco_stuff_calls_stuff():
    theirs = coco_stuff10k.FILES.label_space
    is_stuff = {name.split("-")[0]: stuff for name, stuff in zip(theirs.names, theirs.is_stuff, strict=True)}
    shared = [(name, stuff) for name, stuff in zip(SPACE.names, SPACE.is_stuff, strict=True) if name in is_stuff]
    assert len(shared) > 30
    assert [name for name, stuff in shared if stuff != is_stuff[name]] == ["table"]


def test_names_and_numbers_are_those_of_mmsegmentation():
    """Its checkpoints predict these classes in this order, and its converter lists the numbers of the categories."""
    mmseg_models()
    import mmseg
    from mmseg.datasets import PascalContextDataset59

    assert PascalContextDataset59.METAINFO["classes"] == SPACE.names
    converter = Path(mmseg.__file__).parent / ".mim" / "tools" / "dataset_converters" / "pascal_context.py"
    listed = re.search(r"np\.array\(\[([\d,\s]+)\]", converter.read_text())[1]
    assert sorted(map(int, listed.split(","))) == [0, *pascal_context.CATEGORIES]


@given(st.lists(st.integers(0, 459), min_size=1, max_size=40), st.sampled_from([np.uint16, np.float64]))
def test_a_pixel_of_a_category_gets_the_class_of_its_name(categories, dtype):
    label_map = np.array([categories], dtype)
    png = pascal_context.mat_to_png(mat(label_map, "LabelMap"), "x.mat")
    np.testing.assert_array_equal(decode_label(png, "x.mat", SPACE), train_ids(label_map))


def test_each_class_is_found_at_exactly_one_category():
    everything = np.arange(460, dtype=np.uint16).reshape(20, 23)
    found = decode_label(pascal_context.mat_to_png(mat_73(everything, "LabelMap"), "x.mat"), "x.mat", SPACE)
    np.testing.assert_array_equal(np.bincount(found.ravel(), minlength=256)[:59], 1)
    assert (found == VOID).sum() == 460 - 59


# --- from files to records


def place_files(tmp_path: Path, form: str) -> Path:
    """Write the files in one of the forms in which users have them, and return the root."""
    files = write_pascal_context(tmp_path / "files")
    root = tmp_path / "root"
    root.mkdir()
    if form == "folders":
        return files
    if form == "folders in VOC2010":
        for name in ("trainval", "labels.txt"):
            (files / name).rename(files / "VOCdevkit" / "VOC2010" / name)
        shutil.copytree(files / "VOCdevkit" / "VOC2010", files / "VOCdevkit" / "VOC2007")  # not the one that is read
        shutil.rmtree(files / "VOCdevkit" / "VOC2007" / "ImageSets")
        return files / "VOCdevkit"
    if form == "one zip":
        return zip_folder(files, root / "everything.zip")
    tar_folder(files / "VOCdevkit", root / "VOCtrainval_03-May-2010.tar")
    if form == "archives":
        tar_folder(files / "trainval", root / "trainval.tar.gz")
    else:
        (files / "trainval").rename(root / "trainval")
    return root


@pytest.mark.parametrize("form", ["folders", "folders in VOC2010", "one zip", "archives", "archive and folder"])
def test_labels_are_those_of_the_matlab_files_wherever_they_lie(tmp_path, form):
    root = place_files(tmp_path, form)
    written = write_pascal_context(tmp_path / "again")  # the same files, untouched
    voc = written / "VOCdevkit" / "VOC2010"
    dataset = open_dataset("pascal_context", str(root), str(tmp_path / "prepared"))
    for split, short in SPLITS.items():
        source = dataset.open_split(split)
        assert names_of(source) == (voc / "ImageSets" / "Main" / f"{short}.txt").read_text().split()
        for i in range(len(source)):
            name, pair = source[i]["name"], decode_pair(source[i], SPACE)
            assert source[i]["image"] == (voc / "JPEGImages" / f"{name}.jpg").read_bytes()
            categories = scipy.io.loadmat(written / "trainval" / f"{name}.mat")["LabelMap"]
            np.testing.assert_array_equal(pair.label, train_ids(categories))
    assert dataset.reports["training"].num_images == 4
    raw = open_dataset("pascal_context", str(root), str(tmp_path / "prepared"), is_raw=True)
    assert len(raw.checksums("validation")) == 3 and names_of(raw.open_split("validation")) == names_of(source)


def test_converted_files_give_the_labels_of_the_native_ones(tmp_path, caplog):
    native = open_dataset("pascal_context", str(write_pascal_context(tmp_path / "native")), str(tmp_path / "p"))
    assert "JPEGImages: 1 .jpg file is passed over: no list names them" in caplog.text
    root = write_converted_context(tmp_path / "converted") / "VOCdevkit" / "VOC2010"
    converted = open_dataset("pascal_context", str(root), str(tmp_path / "p"))
    for split in SPLITS:
        mine, theirs = native.open_split(split), converted.open_split(split)
        assert names_of(mine) == names_of(theirs)
        for i in range(len(mine)):
            np.testing.assert_array_equal(decode_pair(mine[i], SPACE).label, decode_pair(theirs[i], SPACE).label)


def test_the_published_files_are_those_of_both_authors():
    files = (pascal_context.FILES.published, *pascal_context.FILES.further)
    assert [file.file_name for file in files] == ["VOCtrainval_03-May-2010.tar", "trainval.tar.gz"]
    assert sum(pascal_context.FILES.num_images.values()) == 10_103
    assert ", together with trainval.tar.gz from https://" in files[0].note  # what to fetch by hand without a network


def test_both_files_are_downloaded_and_the_whole_set_is_found_later(tmp_path, monkeypatch):
    files, web = write_pascal_context(tmp_path / "files"), tmp_path / "web"
    web.mkdir()
    photographs = tar_folder(files / "VOCdevkit", web / "VOCtrainval_03-May-2010.tar")
    annotations = tar_folder(files / "trainval", web / "trainval.tar.gz")
    published = dataclasses.replace(
        pascal_context.FILES,
        num_images={"training": 4, "validation": 3},
        published=PublishedFile(photographs.as_uri(), photographs.name),
        further=(PublishedFile(annotations.as_uri(), annotations.name),),
    )
    monkeypatch.setitem(DATASETS, "pascal_context", published.spec())
    first = open_dataset("pascal_context", None, str(tmp_path / "prepared"))
    assert len(first.open_split("validation")) == 3
    shutil.rmtree(web)
    shutil.rmtree(tmp_path / "prepared" / "downloads")
    assert open_dataset("pascal_context", None, str(tmp_path / "prepared")).place == first.place


# --- what is wrong is named


def damage(root: Path, what: str) -> None:
    name = (root / "VOCdevkit" / "VOC2010" / "ImageSets" / "Main" / "train.txt").read_text().split()[2]
    labels, label_map = root / "labels.txt", root / "trainval" / f"{name}.mat"
    size = np.asarray(Image.open(root / "VOCdevkit" / "VOC2010" / "JPEGImages" / f"{name}.jpg")).shape[:2]
    if what == "no label maps":
        shutil.rmtree(root / "trainval")
    elif what == "no photographs":
        shutil.rmtree(root / "VOCdevkit" / "VOC2010" / "JPEGImages")
    elif what == "no list":
        (root / "VOCdevkit" / "VOC2010" / "ImageSets" / "Main" / "val.txt").unlink()
    elif what == "no label map":
        label_map.unlink()
    elif what == "no photograph":
        (root / "VOCdevkit" / "VOC2010" / "JPEGImages" / f"{name}.jpg").unlink()
    elif what == "damaged":
        label_map.write_bytes(label_map.read_bytes()[:-20])
    elif what == "another variable":
        label_map.write_bytes(mat(np.ones(size)))
    elif what == "460":
        label_map.write_bytes(mat(np.full(size, 460.0), "LabelMap"))
    elif what == "another size":
        label_map.write_bytes(mat(np.full((9, 56), 9.0), "LabelMap"))
    elif what == "a class is missing":
        labels.write_text(labels.read_text().replace("9: bag\n", ""))
    elif what == "another number":
        labels.write_text(labels.read_text().replace("9: bag\n", "10: bag\n"))
    elif what == "a class twice":
        labels.write_text(labels.read_text() + "460: bag\n")
    elif what == "damaged archive":
        shutil.rmtree(root / "trainval")
        (root / "trainval.tar.gz").write_bytes(b"<!DOCTYPE html>")
    elif what == "another archive":
        shutil.rmtree(root / "trainval")
        tar_folder(root / "VOCdevkit", root / "trainval.tar.gz")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "no label maps",
            r"root=.* holds the photographs \(.*VOC2010\), but no label maps: put trainval\.tar\.gz from https",
        ),
        (
            "no photographs",
            r"root=.* holds no such files: name the unpacked folder of PASCAL VOC 2010 .*VOCtrainval_03",
        ),
        ("no list", r"VOC2010/ImageSets/Main/val\.txt is missing"),
        (
            "no label map",
            r"Main/train\.txt, line 3 names 2008_\d+, but .*trainval/2008_\d+\.mat is missing: add the file",
        ),
        ("no photograph", r"Main/train\.txt, line 3 names 2008_\d+, but .*JPEGImages/2008_\d+\.jpg is missing"),
        ("damaged", r"trainval/2008_\d+\.mat cannot be read as a MATLAB file"),
        ("another variable", r"\.mat has no variable LabelMap, the label map \(it holds S\)"),
        (
            "460",
            r"\.mat: the variable LabelMap holds the value 460.0 \(\d+ pixels are not whole numbers from 0 to 459\)",
        ),
        ("another size", r"\.jpg is 56 × 32 pixels, but its label .*\.mat is 56 × 9"),
        ("a class is missing", r"labels\.txt has no 'bag', which is one of the 59 classes: expected the line '9: bag'"),
        ("another number", r"labels\.txt has 'bag' with the number 10, .*expected the line '9: bag'"),
        ("a class twice", r"labels\.txt has 'bag' with the number 9 and 460, .*expected the line '9: bag'"),
        ("damaged archive", r"trainval\.tar\.gz cannot be read as a tar .*fetch the file again"),
        ("another archive", r"trainval\.tar\.gz is a different tar file: expected .* \(with trainval in it\)"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, what, message):
    root = write_pascal_context(tmp_path / "files")
    damage(root, what)
    with pytest.raises(UserError, match=message) as caught:
        open_dataset("pascal_context", str(root), str(tmp_path / "prepared"))
    assert "\n" not in str(caught.value)


def test_without_a_list_of_categories_the_published_numbers_hold(tmp_path):
    root = write_pascal_context(tmp_path / "files")
    (root / "labels.txt").unlink()
    dataset = open_dataset("pascal_context", str(root), str(tmp_path / "prepared"))
    assert dataset.reports["training"].pixels.sum() > 0


# --- the config


@pytest.mark.parametrize("variant", ["", "hrnet", "ocr,pyramid"])
def test_the_config_follows_the_release_of_hrnet(variant):
    config = config_lib.resolve(config_file.load(config_file.find(f"pascal_context:{variant}")))
    training = config.training
    assert (training.learning_rate, training.head_multiplier, training.weight_decay) == (0.001, 10.0, 1e-4)
    assert config_lib.resolve_durations(config, 4_998).training.steps == 62_475  # 200 epochs of batches of 16
    assert training.ohem_threshold is None and config.evaluation.split == "validation"
    assert training.supervision == ("full_size" if variant == "hrnet" else "finest")
