"""Prepare data sets: interrupted, in parallel, from several processes at once, and from a download."""

import dataclasses
import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.native_files import write_ade20k, zip_folder

from pyrseg_jax.data import builders, prepared, record_names, shards
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.datasets import DATASETS, ade20k
from pyrseg_jax.data.download import PublishedFile
from pyrseg_jax.data.pairs import ArchiveSource, list_pairs
from pyrseg_jax.data.spec import DataLocation
from pyrseg_jax.errors import UserError


def records(source) -> list[dict]:
    return [source[i] for i in range(len(source))]


def prepare(base: Path, folder: Path, num_workers: int) -> Path:
    return prepared.prepare_files(ade20k.FILES, DataLocation(str(base), str(folder)), num_workers)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- interrupted, parallel, at the same time


def test_an_interrupted_preparation_leaves_nothing_complete_and_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "PAIRS_PER_SHARD", 2)
    base, folder = write_ade20k(tmp_path), tmp_path / "prepared"
    real, written = shards.write_shard, []

    def write_and_stop(shard, *rest):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(shard)
        return real(shard, *rest)

    monkeypatch.setattr(shards, "write_shard", write_and_stop)
    with pytest.raises(KeyboardInterrupt):
        open_dataset("ade20k", str(base), str(folder))
    assert not list(folder.rglob("dataset_info.json")) and not list(folder.rglob("*.partial"))
    monkeypatch.setattr(shards, "write_shard", lambda shard, *rest: written.append(shard) or real(shard, *rest))
    dataset = open_dataset("ade20k", str(base), str(folder))
    assert len(written) == len({shard.path for shard in written}) == 5  # 3 of training, 2 of validation; none twice
    straight = open_dataset("ade20k", str(base), str(tmp_path / "straight"))
    for split in ("training", "validation"):
        assert records(dataset.open_split(split)) == records(straight.open_split(split))
    assert not (folder / "ade20k" / "unfinished").exists()


def test_after_a_bad_file_is_replaced_only_its_shard_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "PAIRS_PER_SHARD", 2)
    base, folder = write_ade20k(tmp_path), tmp_path / "prepared"
    label = base / "annotations" / "training" / "ADE_train_00000004.png"
    good = label.read_bytes()
    label.write_bytes(good[:50])
    with pytest.raises(UserError, match=r"ADE_train_00000004\.png is damaged .* the same command continues"):
        open_dataset("ade20k", str(base), str(folder))
    label.write_bytes(good)
    real, written = shards.write_shard, []
    monkeypatch.setattr(shards, "write_shard", lambda shard, *rest: written.append(shard) or real(shard, *rest))
    dataset = open_dataset("ade20k", str(base), str(folder))
    assert [(shard.split, list(shard.indices)) for shard in written] == [("training", [2, 3])]
    assert len(dataset.open_split("training")) == 5


def test_workers_prepare_the_same_as_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "PAIRS_PER_SHARD", 2)
    base = write_ade20k(tmp_path)
    alone = prepare(base, tmp_path / "alone", 1)
    monkeypatch.setattr(shards, "MIN_PAIRS_FOR_POOL", 1)
    together = prepare(base, tmp_path / "together", 2)
    found, expected = files_below(together), files_below(alone)
    assert found.keys() == expected.keys()
    for name in ("reports.json", "checksums.csv", "origin.json"):
        assert found[name] == expected[name]
    for split in ("training", "validation"):
        sources = [prepared.PreparedSource(prepared.open_prepared(folder), split) for folder in (together, alone)]
        assert records(sources[0]) == records(sources[1])


class KillingSource(ArchiveSource):
    """Ends the process that reads it, as a system without memory does."""

    def __getitem__(self, index):
        os._exit(9)


def list_killing_splits(files):
    folders = {split: (f"images/{split}", f"annotations/{split}") for split in ade20k.SPLITS}
    return {split: KillingSource(files, list_pairs(files, *pair, ade20k.LAYOUT)) for split, pair in folders.items()}


def test_a_killed_worker_is_reported(tmp_path, monkeypatch):
    base = write_ade20k(tmp_path)
    monkeypatch.setattr(shards, "MIN_PAIRS_FOR_POOL", 1)
    files = dataclasses.replace(ade20k.FILES, list_splits=list_killing_splits)
    with pytest.raises(UserError, match="a process that prepares the data set was killed .*: it continues"):
        prepared.prepare_files(files, DataLocation(str(base), str(tmp_path / "p")), num_workers=2)


def test_two_that_want_the_same_set_prepare_it_once(tmp_path, monkeypatch):
    base, written = write_ade20k(tmp_path), []
    real = shards.write_shard
    monkeypatch.setattr(shards, "write_shard", lambda shard, *rest: written.append(shard) or real(shard, *rest))
    places = []

    def work():
        places.append(prepare(base, tmp_path / "p", 1))

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
    """ADE20K as if its authors published a file of five and three pairs."""
    zipped = zip_folder(write_ade20k(tmp_path / "web"), tmp_path / "web" / "ADEChallengeData2016.zip")
    files = dataclasses.replace(
        ade20k.FILES,
        num_images={"training": 5, "validation": 3},
        published=PublishedFile(zipped.as_uri(), "ADEChallengeData2016.zip"),
    )
    monkeypatch.setitem(DATASETS, "ade20k", files.spec())
    return zipped


def test_from_the_download_on_and_later_without_it(published, tmp_path, caplog):
    folder = tmp_path / "prepared"
    first = open_dataset("ade20k", None, str(folder))
    assert not [message for message in caplog.messages if "cannot be compared" in message]
    assert json.loads((Path(first.place) / "origin.json").read_text())["is_whole"]
    published.unlink()
    shutil.rmtree(folder / "downloads")
    again = open_dataset("ade20k", None, str(folder))
    assert again.place == first.place and len(again.open_split("training")) == 5
    raw = open_dataset("ade20k", None, str(folder), is_raw=True)
    assert len(raw.open_split("validation")) == 3


def test_a_selection_is_accepted_with_a_word_and_never_taken_for_the_whole(published, tmp_path, caplog):
    sample = write_ade20k(tmp_path / "sample", num_training=2, num_validation=1, seed=3)
    dataset = open_dataset("ade20k", str(sample), str(tmp_path / "prepared"))
    assert len(dataset.open_split("training")) == 2
    assert "holds 2 training images, 1 validation images, but 5 training images" in caplog.text
    assert len(open_dataset("ade20k", None, str(tmp_path / "prepared")).open_split("training")) == 5


# --- what killed and odd preparations leave


def test_remains_of_killed_preparations_are_removed_by_the_next(tmp_path, caplog):
    base, folder = write_ade20k(tmp_path), tmp_path / "prepared"
    place = folder / "ade20k"
    for remain in (place / "incomplete.ABC_1.0.0", place / "0123" / "incomplete.DEF_1.0.0", place / "unfinished"):
        remain.mkdir(parents=True)
        (remain / "x.77.partial").write_text("half")
    with caplog.at_level("INFO"):
        done = prepare(base, folder, 1)
    assert "removed 3 unfinished files of a preparation that was interrupted" in caplog.messages
    assert not list(folder.rglob("incomplete.*")) and not list(folder.rglob("*.partial"))
    assert (done / "origin.json").is_file()


def test_whatever_a_library_raises_on_a_pair_is_a_problem_of_this_pair(tmp_path, monkeypatch):
    base = write_ade20k(tmp_path)
    real = shards.load_pair

    def load(source, index, label_space):
        if index == 1:
            raise SystemError("a library's fault\nwith more lines")
        return real(source, index, label_space)

    monkeypatch.setattr(shards, "load_pair", load)
    with pytest.raises(UserError) as caught:
        prepare(base, tmp_path / "prepared", 1)
    (line,) = str(caught.value).splitlines()
    assert "ADE_train_00000002.jpg" in line and "SystemError: a library's fault" in line
    assert "1 more problem" in line and "all good pairs are kept" in line  # the same name in the other split


def test_names_that_are_not_utf8_survive_preparation(tmp_path):
    base = write_ade20k(tmp_path)
    odd = os.fsdecode(b"caf\xe9")
    for kind, suffix in (("images", ".jpg"), ("annotations", ".png")):
        (base / kind / "training" / f"ADE_train_00000001{suffix}").rename(base / kind / "training" / f"{odd}{suffix}")
    dataset = open_dataset("ade20k", str(base), str(tmp_path / "prepared"))
    assert odd in [record["name"] for record in records(dataset.open_split("training"))]
    raw = open_dataset("ade20k", str(base), str(tmp_path / "prepared"), is_raw=True)
    assert odd in raw.checksums("training")


@given(st.text(st.characters() | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])))
def test_stored_names_are_utf8_and_come_back(name):
    name = name.replace("/", "")
    if any(
        0xD800 <= ord(character) < 0xDC80 or ord(character) > 0xDCFF
        for character in name
        if "\ud800" <= character <= "\udfff"
    ):
        return  # no file name holds these
    stored = record_names.to_stored(name)
    assert record_names.from_stored(stored.encode().decode()) == name


def test_the_lock_of_a_preparation_never_touches_what_is_behind_a_link(tmp_path):
    root, place = write_ade20k(tmp_path, 2, 1), tmp_path / "prepared" / "ade20k"
    place.mkdir(parents=True)
    (tmp_path / "mine.txt").write_text("my notes")
    (place / "lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(UserError, match="lock is a symbolic link: expected a regular file; remove it"):
        open_dataset("ade20k", str(root), str(place.parent))
    assert (tmp_path / "mine.txt").read_text() == "my notes"
    (place / "lock").unlink()
    os.mkfifo(place / "lock")
    with pytest.raises(UserError, match="lock is a named pipe"):  # opening it would wait forever
        open_dataset("ade20k", str(root), str(place.parent))
