"""Damaged, missing and hostile files of published data sets: each is named, and nothing prepared is lost."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.native_files import mat, mat_73, write_ade20k, write_coco_stuff10k, zip_folder

from pyrseg_jax.data import zip_archive
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.errors import UserError


def records(source) -> list[dict]:
    return [source[i] for i in range(len(source))]


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def damage_ade(base: Path, what: str) -> Path:
    """Break one thing about ADE20K's files and return the root to open."""
    image = base / "images" / "training" / "ADE_train_00000003.jpg"
    label = base / "annotations" / "training" / "ADE_train_00000003.png"
    if what == "truncated image":
        image.write_bytes(image.read_bytes()[:-300])
    elif what == "empty image":
        image.write_bytes(b"")
    elif what == "a web page":
        image.write_bytes(b"<!DOCTYPE html><title>404</title>")
    elif what == "colors as labels":
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
    elif what == "two of the same name":
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
        return damage_zip(zip_folder(base, base.parent / "ADEChallengeData2016.zip"), what)
    return base


def damage_zip(path: Path, what: str) -> Path:
    data = bytearray(path.read_bytes())
    name = b"ADEChallengeData2016/images/training/ADE_train_00000003.jpg"
    start = data.index(name)  # of the local header's name; the data follow it
    if what == "zip cut off":
        path.write_bytes(data[: len(data) // 2])
    elif what == "not a zip":
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
    ("a web page", r"ADE_train_00000003\.jpg cannot be decoded .*it is a web page"),
    ("colors as labels", r"annotations/training/ADE_train_00000003\.png has the channels RGB"),
    ("another size", r"ADE_train_00000003\.jpg is 56 × 43 pixels, but its label .* is 50 × 43"),
    ("no label", r"ADE_train_00000003\.jpg has no label: expected .*ADE_train_00000003\.png"),
    ("no image", r"ADE_train_00000003\.png has no image: expected .*ADE_train_00000003\.jpg"),
    ("151", r"ADE_train_00000003\.png: value 151 at row 0, column 0 \(2408 pixels of it\).*0 \(void\) or 1 … 150"),
    ("16 bits", r"ADE_train_00000003\.png: value 1000"),
    ("two of the same name", r"ADE_train_00000003\.png and ADE_train_00000003\.jpg differ only in the file extension"),
    ("label as JPEG", r"ADE_train_00000003\.png is a JPEG: its compression changes label values"),
    (
        "decompression bomb",
        r"ADE_train_00000003\.png has 30000 × 30000 pixels .* 900 million: the limit is 500 million",
    ),
    ("no annotations", r"annotations/training is missing: the folder layout is"),
    ("nothing there", r"root=.*missing: there is no such file or folder .*ADEChallengeData2016\.zip"),
    ("something else", r"root=.*empty holds no such files: name the unpacked folder of ade20k"),
    ("zip cut off", r"ADEChallengeData2016\.zip cannot be read as a zip .*it may be cut off; fetch the file again"),
    ("not a zip", r"ADEChallengeData2016\.zip cannot be read as a zip"),
    ("zip damaged", r"\.zip:ADEChallengeData2016/images/training/ADE_train_00000003\.jpg cannot be unpacked"),
    ("zip with a password", r"ADE_train_00000003\.jpg cannot be unpacked without its password"),
    ("zip that escapes", r"the entry 'ADEChallengeData2016/\.\./\.\./\.\./\.bashrc' leads out of its folder"),
    ("zip of something else", r"ADEChallengeData2016\.zip is a different zip file"),
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
        monkeypatch.setattr(zip_archive, "MAX_FILE_BYTES", 2**20)
    root = damage_ade(Path(shutil.copytree(ade, tmp_path / "ADEChallengeData2016")), what)
    assert_refused_and_nothing_lost("ade20k", root, prepared, message)


def test_a_zip_with_a_wrong_size_is_unpacked_only_up_to_the_limit(good, tmp_path, monkeypatch):
    monkeypatch.setattr(zip_archive, "MAX_FILE_BYTES", 2**20)
    path = damage_zip(zip_folder(good[0], tmp_path / "ADEChallengeData2016.zip"), "zip bomb")
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
    ("three axes", mat(np.ones((40, 56, 3))), r"{}\.mat: the variable S is not a map of numbers \(shape \(40, 56, 3\)"),
    ("text", mat(np.array(["wall"])), r"{}\.mat: the variable S is not a map of numbers"),
    ("300", mat(LABEL.astype(np.int16) * 300), r"{}\.mat: the variable S holds the value 300 \(2240 pixels"),
    ("a half", mat(LABEL * 0.5), r"{}\.mat: the variable S holds the value 0\.5"),
    ("nan", mat(np.full((40, 56), np.nan)), r"{}\.mat: the variable S holds the value nan"),
    ("no class", mat(LABEL * 12), r"{}\.mat: value 12 at row 0, column 0 .*1 … 182 with gaps \(171 classes\)"),
    ("another size", mat(LABEL[:-1]), r"{}\.jpg is 56 × 40 pixels, but its label .*{}\.mat is 56 × 39"),
    ("list: absent", None, r"imageLists/test\.txt, line 3 names nobody, but .*images/nobody\.jpg is missing"),
    ("list: twice", None, r"test\.txt, line 3: {} is already listed in .*train\.txt, line 3"),
    ("list: empty", None, r"imageLists/test\.txt lists no images"),
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
    data[2000:2200] = bytes(200)  # part of the second or third record; most of a file this small is padding
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"record \d of ade20k/training in .* cannot be read .*delete this folder"):
        records(open_dataset("ade20k", str(good[0]), str(prepared)).open_split("training"))


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json", "*training.array_record*"])
@pytest.mark.parametrize("way", ["emptied", "cut", "flipped", "template"])
def test_damaged_files_of_a_prepared_set_are_one_line(good, tmp_path, file, way):
    """Whatever TFDS, Protocol Buffers or ArrayRecord raise, the line names the folder and what to do."""
    prepared = Path(shutil.copytree(good[2], tmp_path / "prepared"))
    place = Path(open_dataset("ade20k", str(good[0]), str(prepared)).place)
    damaged = next(place.glob(file))
    data = damaged.read_bytes()
    changed = {
        "emptied": b"",
        "cut": data[: len(data) // 2],
        "flipped": data[:1] + bytes([data[1] ^ 4]) + data[2:],
        "template": data.replace(b"{DATASET}", b"{DATASEU}"),
    }[way]
    damaged.write_bytes(changed)
    try:
        found = records(open_dataset("ade20k", str(good[0]), str(prepared)).open_split("training"))
    except UserError as error:
        assert "\n" not in str(error) and str(place) in str(error) and "delete this folder" in str(error)
    else:  # the damage lies in padding or in a text that only people read
        assert len(found) == len(records(open_dataset("ade20k", str(good[0]), str(good[2])).open_split("training")))
