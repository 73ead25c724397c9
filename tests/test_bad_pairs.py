"""Pairs that cannot be used: left out, replaced, or reported."""

import numpy as np
import pytest
from absl import flags
from PIL import Image
from support.data_sets import write_folder

from pyrseg_jax.data import checks, pipeline
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.errors import UserError


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """Six pairs, of which the second and fifth cannot be used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_folder(tmp_path / "data", {"training": 6, "validation": 3})
    (folder / "images" / "training" / "training_1.jpg").write_bytes(b"broken")
    Image.fromarray(np.full((48, 64), 77, np.uint8)).save(folder / "annotations" / "training" / "training_4.png")
    return folder


def test_skipping_leaves_bad_pairs_out_and_says_so(damaged, caplog, monkeypatch):
    dataset = open_dataset("folder", str(damaged), None, on_error="skip")
    source = dataset.open_split("training")
    assert [source[i]["name"] for i in range(len(source))] == [f"training_{i}" for i in (0, 2, 3, 5)]
    assert "2 of 6 pairs of" in caplog.text and "training_1.jpg cannot be decoded" in caplog.text
    monkeypatch.setattr(checks, "make_report", lambda *_: pytest.fail("read again"))
    checks.check_once(dataset.open_split("training"), dataset.label_space, "training")


def test_skipping_keeps_the_draw_of_the_holdout(damaged):
    def draw(**kwargs):
        dataset = open_dataset("folder", str(damaged), None, holdout=3, **kwargs)
        return [
            [source[i]["name"] for i in range(len(source))]
            for source in map(dataset.open_split, ("training", "holdout"))
        ]

    for kept, all_of_them in zip(draw(on_error="skip"), draw(), strict=True):
        assert kept == [name for name in all_of_them if name not in ("training_1", "training_4")]


def test_a_split_without_a_usable_pair_is_an_error(damaged):
    for image in (damaged / "images" / "validation").iterdir():
        image.write_bytes(b"")
    dataset = open_dataset("folder", str(damaged), None, on_error="skip")
    with pytest.raises(UserError, match="none of the 3 pairs can be used, the first: .*validation_0.jpg"):
        dataset.open_split("validation")


def parse_flags():
    """Grain's worker processes read flags."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def batches(folder, on_error, count=6, **kwargs):
    dataset = open_dataset("folder", str(folder), None)  # which checks nothing: training would
    return pipeline.training_batches(
        dataset.open_split("training"),
        dataset.label_space,
        Augmentation(64),
        batch_size=2,
        seed=1,
        on_error=on_error,
        **kwargs,
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_record_that_turns_bad_while_training_is_named(damaged, workers):
    parse_flags()
    stream = batches(damaged, "stop", workers=workers)
    # The message ends here: nothing that Grain adds may follow.
    with pytest.raises(UserError, match=r"training_(1\.jpg|4\.png).*(remove it from the data set|remap=VALUE:CLASS)$"):
        for _ in range(3):
            next(stream)
    stream.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_skipped_record_is_replaced_counted_and_logged_once(damaged, caplog, workers):
    parse_flags()
    stream = batches(damaged, "skip", workers=workers)
    found = [next(stream) for _ in range(6)]  # two epochs
    stream.close()
    assert all(set(batch) == {"image", "label"} and batch["image"].shape == (2, 64, 64, 3) for batch in found)
    assert stream.num_skipped == 4
    messages = [
        message
        for message in caplog.messages
        if message.startswith("skipped a bad record and read another one instead")
    ]
    assert sorted("training_1.jpg" in message for message in messages) == [False, True]
    again = batches(damaged, "skip", first_step=3)
    for batch in found[3:]:
        np.testing.assert_array_equal(next(again)["image"], batch["image"])


def test_a_source_without_a_readable_record_is_an_error(damaged):
    for image in (damaged / "images" / "training").iterdir():
        image.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 6 records in a row can be read, the first: .*training_\d\.jpg"):
        next(batches(damaged, "skip"))


def test_a_killed_worker_is_explained():
    def killed():
        raise RuntimeError("Grain worker process 0 was terminated unexpectedly with exit code -9.\nmore")
        yield

    with pytest.raises(
        UserError, match=r"exit code -9\.\): most likely memory ran out; set workers=N to a smaller number"
    ):
        next(pipeline.TrainingBatches(killed()))

    def failing():
        raise RuntimeError("another thing")
        yield

    with pytest.raises(RuntimeError, match="another thing"):
        next(pipeline.TrainingBatches(failing()))
