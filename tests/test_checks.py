"""What is remembered of checked files must be true: of these files, in this place, by these rules."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.data_sets import write_folder
from support.native_files import write_ade20k, zip_folder

from pyrseg_jax.data import checks, loading, prepared, rules
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.checks import check_once, recall_report
from pyrseg_jax.data.report import make_report
from pyrseg_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Keeps what these tests remember away from other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pyrseg_jax" / "checked"


def check(root, name="folder"):
    dataset = open_dataset(name, str(root), str(Path(root).parent / "prepared"))
    return check_once(dataset.open_split("training"), dataset.label_space, "training")


def fresh_problems(root) -> list[str]:
    dataset = open_dataset("folder", str(root), None)
    return [text for _, text in make_report(dataset.open_split("training"), dataset.label_space, "x").problems]


def is_remembered(root) -> bool:
    dataset = open_dataset("folder", str(root), None)
    return recall_report(dataset.open_split("training"), dataset.label_space) is not None


def write_equal_sets(tmp_path) -> tuple[Path, Path]:
    """Write a good set and a bad one whose files have the same names, sizes and times, changed in the same moment."""
    good = write_folder(tmp_path / "good", {"training": 3}, size=(16, 16))
    bad = Path(shutil.copytree(good, tmp_path / "bad"))
    for path in sorted((bad / "annotations").rglob("*.png")):
        path.write_bytes(bytes(path.stat().st_size))
    for path in [*good.rglob("*"), *bad.rglob("*")]:
        os.utime(path, ns=(10**18, 10**18))
    return good, bad


@pytest.mark.parametrize("first", ["good", "bad"])
def test_a_set_is_not_judged_by_another_with_equal_names_sizes_and_times(tmp_path, first):
    good, bad = write_equal_sets(tmp_path)
    for root in (good, bad) if first == "good" else (bad, good):
        if root == good:
            check(root)
        else:
            with pytest.raises(UserError, match=r"bad/annotations/training/training_0\.png cannot be decoded"):
                check(root)


def test_a_set_that_takes_the_place_of_another_is_read(tmp_path):
    good, bad = write_equal_sets(tmp_path)
    place = tmp_path / "data"
    good.rename(place)
    check(place)
    place.rename(good)
    bad.rename(place)
    with pytest.raises(UserError, match=r"data/annotations/training/training_0\.png cannot be decoded"):
        check(place)
    shutil.rmtree(place)
    place.symlink_to(good)
    check(place)


def test_messages_name_the_place_of_today(tmp_path, cache):
    _, bad = write_equal_sets(tmp_path)
    with pytest.raises(UserError, match="/bad/annotations"):
        check(bad)
    moved = bad.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="/moved/annotations"):
        check(moved)
    (tmp_path / "alias").symlink_to("moved")
    with pytest.raises(UserError, match="/alias/annotations"):
        check(tmp_path / "alias")
    stored = "".join(path.read_text() for path in cache.iterdir())
    assert "/" not in stored and "cannot" not in stored


def test_a_verdict_of_other_rules_is_not_believed(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data", {"training": 2}, size=(8, 8))
    check(root)
    assert is_remembered(root)
    monkeypatch.setattr(checks, "describe_rules", lambda: "mended")
    assert not is_remembered(root)
    described = rules.describe_rules()
    assert described == rules.describe_rules() and "pillow" in described and "opencv" in described


def test_a_problem_that_is_gone_is_not_repeated(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data", {"training": 3}, size=(8, 8))
    real, failures = loading.decode_pair, []

    def decode(record, label_space):
        if record["name"] == "training_1":
            raise failures[-1]
        return real(record, label_space)

    monkeypatch.setattr(loading, "decode_pair", decode)
    for failure, is_lasting in (
        (MemoryError(), False),
        (OSError(5, "Input/output error"), False),
        (ValueError(), True),
    ):
        failures.append(failure)
        with pytest.raises(UserError, match=r"training_1\.jpg or its label map cannot be used \("):
            check(root)
        assert is_remembered(root) == is_lasting
    monkeypatch.setattr(loading, "decode_pair", real)
    assert not is_remembered(root)
    check(root)


def test_a_damaged_or_unwritable_memory_only_costs_time(tmp_path, cache, caplog, monkeypatch):
    root = write_folder(tmp_path / "data", {"training": 2}, size=(8, 8))
    check(root)
    (stored,) = cache.iterdir()
    whole = stored.read_text()
    for damaged in (
        "",
        whole[:40],
        "[]",
        whole.replace('"num_pairs": 2', '"num_pairs": 3'),
        json.dumps({"report": {}}),
    ):
        stored.write_text(damaged)
        assert not is_remembered(root)
        check(root)
        assert is_remembered(root) and stored.read_text() == whole
    stored.unlink()
    caplog.set_level("INFO")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checks, "write_atomically", fail)
    check(root)
    check(root)
    assert caplog.text.count("cannot be written (No space left on device)") == 1


def test_old_verdicts_are_forgotten(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(checks, "MAX_REMEMBERED", 2)
    for i in range(4):
        check(write_folder(tmp_path / f"data{i}", {"training": 1}, size=(8, 8)))
    assert len(list(cache.iterdir())) == 2 and is_remembered(tmp_path / "data3")


CHANGES = ("nothing", "content", "content, time kept", "replaced, time kept", "renamed", "added", "removed", "linked")


def change(root: Path, how: str, index: int, value: int) -> None:
    """Change one pair of a set; with times kept, `ls` shows no difference."""
    label = sorted((root / "annotations" / "training").iterdir())[index]
    if label.is_symlink():
        return
    image = next((root / "images" / "training").glob(f"{label.stem}.*"))
    found, data = label.stat(), bytearray(label.read_bytes())
    data[len(data) // 2] ^= value
    if how in ("content", "content, time kept"):
        label.write_bytes(data)
    elif how == "replaced, time kept":
        other = root / "other"
        other.write_bytes(data)
        os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
        other.replace(label)
    elif how == "renamed":
        label.rename(label.with_stem(f"z{value}"))
        image.rename(image.with_stem(f"z{value}"))
    elif how == "added":
        shutil.copy2(label, label.with_stem(f"z{value}"))
        shutil.copy2(image, image.with_stem(f"z{value}"))
    elif how == "removed":
        label.unlink()
        image.unlink()
    elif how == "linked":
        label.rename(root / "linked.png")
        label.symlink_to("/dev/null" if value % 2 else root / "linked.png")
    if "time kept" in how:
        os.utime(label, ns=(found.st_atime_ns, found.st_mtime_ns))


@settings(max_examples=10)
@given(st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 1), st.integers(1, 255)), max_size=3))
def test_the_verdict_equals_that_of_a_fresh_check(tmp_path_factory, changes):
    root = write_folder(tmp_path_factory.mktemp("set") / "data", {"training": 5}, size=(8, 8))
    for how, index, value in [("nothing", 0, 1), *changes]:
        change(root, how, index, value)
        fresh = fresh_problems(root)
        for _ in range(2):  # read, and remembered
            try:
                check(root)
                assert fresh == []
            except UserError as error:
                assert str(error).startswith(fresh[0])


def test_other_label_values_are_another_check(tmp_path):
    from pyrseg_jax.data.label_mapping import LabelMapping

    root = write_folder(tmp_path / "data", {"training": 2}, size=(16, 16))
    check(root)
    dataset = open_dataset("folder", str(root), None, label_mapping=LabelMapping(first_value=0, void_value=255))
    with pytest.raises(UserError, match="value 3 .*is not a class"):
        check_once(dataset.open_split("training"), dataset.label_space, "training")


# --- prepared sets


def test_a_prepared_set_is_not_taken_for_another_with_equal_names_sizes_and_times(tmp_path):
    one, two = (write_ade20k(tmp_path / name, 2, 1) for name in ("one", "two"))
    for path in sorted((two / "annotations").rglob("*.png")):
        values = np.asarray(Image.open(path))
        other = two.parent / "other.png"
        Image.fromarray(np.where(values == values[0, 0], 99, values).astype(np.uint8)).save(other)
        size = max(path.stat().st_size, other.stat().st_size)
        for root, source in ((one, one / path.relative_to(two)), (two, other)):
            data = source.read_bytes()
            (root / path.relative_to(two)).write_bytes(data + bytes(size - len(data)))
    for path in [*one.rglob("*"), *two.rglob("*")]:
        os.utime(path, ns=(10**18, 10**18))
    datasets = [open_dataset("ade20k", str(root), str(tmp_path / "prepared")) for root in (one, two)]
    assert datasets[0].place != datasets[1].place
    labels = [dataset.open_split("training")[0]["label"] for dataset in datasets]
    assert labels[0] != labels[1] and len(labels[0]) == len(labels[1])


def test_a_copy_of_a_zip_uses_what_was_prepared(tmp_path):
    first = zip_folder(write_ade20k(tmp_path, 2, 1), tmp_path / "a.zip")
    second = Path(shutil.copy(first, tmp_path / "b.zip"))
    places = {open_dataset("ade20k", str(path), str(tmp_path / "prepared")).place for path in (first, second)}
    assert len(places) == 1


def test_a_set_that_earlier_rules_accepted_is_checked_again(tmp_path, monkeypatch):
    from pyrseg_jax.data import file_dataset
    from pyrseg_jax.data.datasets import ade20k

    folder = prepared.prepare_files(
        ade20k.FILES, file_dataset.DataLocation(str(write_ade20k(tmp_path, 2, 1)), str(tmp_path / "prepared"))
    )
    monkeypatch.setattr(prepared, "prepare_files", lambda *_: folder)
    origin = folder / "origin.json"
    for is_old in (False, True):
        if is_old:
            values = json.loads(origin.read_text())
            del values["rules"]
            origin.write_text(json.dumps(values))
        dataset = open_dataset("ade20k", None, str(tmp_path / "prepared"))
        found = check_once(dataset.open_split("training"), dataset.label_space, "x")
        assert bool(dataset.reports) != is_old
        assert (found is not None and found.num_images == 2) == is_old
