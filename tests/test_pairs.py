"""Pairing images with label maps: equal names match however they are stored, and no file is lost in silence."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.data_sets import write_folder

from pyrseg_jax.data.archive import FolderArchive
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.images.image_formats import IMAGE_SUFFIXES, LABEL_SUFFIXES
from pyrseg_jax.data.listing import is_taken
from pyrseg_jax.data.pairs import list_pairs, remarks_on
from pyrseg_jax.errors import UserError


def folders(tmp_path, images, labels) -> FolderArchive:
    for folder, names in (("images", images), ("labels", labels)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(b"")
    return FolderArchive(tmp_path)


def pairs_of(archive):
    return list_pairs(archive, "images", "labels", "images and labels")


NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("image", "label"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_accents_match_however_they_are_stored(tmp_path, image, label):
    (pair,) = pairs_of(folders(tmp_path, [f"{image}.JPG"], [f"{label}.PNG"]))
    assert (pair.name, pair.image, pair.label) == (NFC, f"images/{image}.JPG", f"labels/{label}.PNG")


def test_two_files_that_look_the_same_are_refused(tmp_path):
    archive = folders(tmp_path, [f"{NFC}.jpg", f"{NFD}.jpg"], [f"{NFC}.png"])
    with pytest.raises(UserError, match=r"differ only in how their accents are stored \(Unicode NFC and NFD\)"):
        pairs_of(archive)


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("A.png", r"'A\.png' \(other letter case\)"),
        ("a.npy", r"'a\.npy' \(another suffix\)"),
        ("a", r"'a' \(no suffix\)"),
        ("a .png", r"'a \.png' \(other spaces\)"),
        ("a.png ", r"'a\.png ' \(another suffix\)"),
        (".a.png", r"'\.a\.png' \(a hidden file\)"),
        ("ａ.png", r"'ａ\.png' \(other characters that look alike\)"),
        ("a_mask.png", r"'a_mask\.png' \(a longer name\)"),
        ("a.jpg.png", r"'a\.jpg\.png' \(a longer name\)"),
        ("a\u200b.png", r"'a.\.png' \(other characters that look alike\)"),
    ],
)
def test_a_name_that_nearly_fits_is_named(tmp_path, label, found):
    archive = folders(tmp_path, ["a.jpg", "b.jpg"], [label, "b.png"])
    with pytest.raises(UserError, match=rf"a\.jpg has no label: expected .*labels/a\.png, and found {found}.*: rename"):
        pairs_of(archive)


def test_a_folder_of_another_name_is_named(tmp_path):
    root = write_folder(tmp_path / "data", {"train": 1}, size=(8, 8))
    with pytest.raises(UserError, match=r"images/training is missing: the folder layout is .*images holds train$"):
        open_dataset("folder", str(root), None).open_split("training")
    (root / "images" / "training").write_bytes(b"")
    with pytest.raises(UserError, match="images/training is a file, not a folder"):
        open_dataset("folder", str(root), None).open_split("training")


def test_a_name_that_only_begins_alike_or_has_its_own_partner_is_not_named(tmp_path):
    archive = folders(tmp_path, ["a.jpg", "a_2.jpg"], ["a_2.png", "ab.png"])
    with pytest.raises(UserError, match=r"a\.png: add the missing file"):
        pairs_of(archive)
    (tmp_path / "other").mkdir()
    archive = folders(tmp_path / "other", ["ﬁ.jpg"], ["fi.png"])
    with pytest.raises(UserError, match=r"'fi\.png' \(other characters that look alike\)"):
        pairs_of(archive)


def test_a_folder_without_an_image_says_what_it_holds(tmp_path):
    archive = folders(tmp_path, ["a.heic", "b.HEIC"], ["a.png"])
    with pytest.raises(UserError, match=r"contains no images, only 2 \.heic files \(HEIC is not read: convert"):
        pairs_of(archive)


stems = st.text(st.sampled_from("aAée\u0301 \udce9\u200b.Å"), min_size=1, max_size=3).filter(lambda s: s.strip("."))
names = st.builds(str.__add__, stems, st.sampled_from([".jpg", ".png", ".PNG", ".heic", ".txt", ".tif", ""])).filter(
    lambda name: len(os.fsencode(name)) < 99
)


@given(st.lists(names, max_size=6, unique=True), st.lists(names, max_size=6, unique=True))
def test_every_file_is_in_a_pair_or_counted_or_an_error_is_raised(tmp_path_factory, images, labels):
    archive = folders(tmp_path_factory.mktemp("pairs"), images, labels)
    try:
        pairs = pairs_of(archive)
    except UserError as error:
        assert " is missing" not in str(error)  # because nothing is
        return
    for kind, given_names, suffixes in (("images", images, IMAGE_SUFFIXES), ("labels", labels, LABEL_SUFFIXES)):
        used = {pair.image if kind == "images" else pair.label for pair in pairs}
        passed = [name for name in given_names if f"{kind}/{name}" not in used]
        assert not any(is_taken(name, suffixes) for name in passed)
        remarks = [line for line in remarks_on(archive, "images", "labels") if f"/{kind}: " in line]
        assert bool(remarks) == bool(passed)
    normal = [unicodedata.normalize("NFC", pair.name) for pair in pairs]
    assert normal == sorted(set(normal))
    for pair in pairs:
        image, label = (unicodedata.normalize("NFC", os.path.basename(f)) for f in (pair.image, pair.label))
        assert os.path.splitext(image)[0] == os.path.splitext(label)[0]
