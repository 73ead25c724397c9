"""What a survey counts and what it finds strange; label values of the user's own; bad pairs that are skipped."""

import json

import numpy as np
import pytest
from absl import flags
from PIL import Image
from support.command_line import error_of, run
from support.data_sets import CLASSES, write_folder

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data import pipeline
from pyrseg_jax.data import report as survey_lib
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.label_mapping import OwnValues, make_label_space
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.data.report import Survey, check_once
from pyrseg_jax.data.report_table import hints, table
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.data.unit_cells import count_cells
from pyrseg_jax.errors import UserError

SPACE = ade_layout(CLASSES)

# --- counting


def count_slowly(label, strides, num_classes):
    """Every cell on its own."""
    height, width = (side // strides[0] * strides[0] for side in label.shape)
    cells, unit_pixels = np.zeros((len(strides), 2)), np.zeros((len(strides), num_classes))
    for level, stride in enumerate(strides):
        for top in range(0, height, stride):
            for left in range(0, width, stride):
                cell = label[top : top + stride, left : left + stride]
                classes = set(cell[cell != VOID].tolist())
                if len(classes) == 1:
                    cells[level, 0] += 1
                    unit_pixels[level, classes.pop()] += (cell != VOID).sum()
                elif classes:
                    cells[level, 1] += 1
    return cells, unit_pixels


@pytest.mark.parametrize("strides", [(32, 16, 8), (16, 8), (8,)])
@pytest.mark.parametrize("num_classes", [3, 255])
def test_cells_are_counted_as_one_by_one(rng, strides, num_classes):
    blocks = rng.integers(0, num_classes, (13, 9))
    label = np.kron(blocks, np.ones((8, 8), int)).astype(np.uint8)[:100, :70]
    label[rng.random(label.shape) < 0.3] = VOID
    label[:32, :32] = VOID
    label[32:70, 10:70] = num_classes - 1
    found = count_cells(label, strides, num_classes)
    cells, unit_pixels = count_slowly(label, strides, num_classes)
    np.testing.assert_array_equal(found.cells, cells)
    np.testing.assert_array_equal(found.unit_pixels, unit_pixels)
    assert cells[-1].min() > 0 and cells[0].max() > 0
    whole = label[: 100 // strides[0] * strides[0], : 70 // strides[0] * strides[0]]
    np.testing.assert_array_equal(found.pixels, [(whole == c).sum() for c in range(num_classes)])


def test_cells_are_those_that_training_sees(rng):
    from pyrseg_jax.pyramid import build_targets

    label = np.kron(rng.integers(0, 4, (8, 8)), np.ones((16, 16), int)).astype(np.uint8)
    label[rng.random(label.shape) < 0.1] = VOID
    found = count_cells(label, (32, 16, 8), 4)
    unity = build_targets(label[None]).unity
    np.testing.assert_array_equal(found.cells, [[(level == 1).sum(), (level == 0).sum()] for level in unity])


def test_an_image_smaller_than_a_cell_counts_no_cell():
    found = Survey.empty(3)
    found.add(np.ones((20, 50), np.uint8))
    assert found.num_images == 1 and found.pixels[1] == 1000 and found.cells.sum() == found.cell_pixels.sum() == 0


def test_parts_add_up_and_survive_a_file(rng):
    maps = [rng.choice([0, 1, 2, VOID], (40 + 8 * (i % 2), 64)).astype(np.uint8) for i in range(4)]
    whole, parts = Survey.empty(3), [Survey.empty(3), Survey.empty(3)]
    for i, label in enumerate(maps):
        whole.add(label)
        parts[i % 2].add(label)
    parts[1].problems.append((7, "bad"))
    whole.problems.append((7, "bad"))
    parts[0].merge(Survey.from_json(json.loads(json.dumps(parts[1].to_json()))))
    assert parts[0].to_json() == whole.to_json()
    assert whole.num_images == 4 and whole.sizes == {(40, 64): 2, (48, 64): 2}


# --- words


def test_the_table_says_what_the_label_maps_hold():
    found = Survey.empty(3)
    label = np.zeros((64, 32), np.uint8)
    label[32:] = 1
    label[32:, 16:] = VOID
    label[63, 0] = 2
    found.add(label)
    lines = table(found, ade_layout(CLASSES, is_stuff=(True, True, False))).splitlines()
    assert lines[0].split() == ["value", "class", "kind", "pixels", "images", "unit", "32", "unit", "16", "unit", "8"]
    assert lines[1].split() == ["1", "sky", "stuff", "66.67%", "1", "100.00%", "100.00%", "100.00%"]
    assert lines[2].split() == ["2", "ground", "stuff", "33.27%", "1", "0.00%", "50.10%", "87.67%"]
    assert lines[3].split() == ["3", "post", "thing", "0.07%", "1", "0.00%", "0.00%", "0.00%"]
    assert lines[4] == "1 images; 25.00% of all pixels are void"
    assert lines[5] == "1 size (width × height): from 32 × 64 over 32 × 64 (the median) to 32 × 64"
    assert lines[6].endswith("unit-cells: 50.00% at stride 32, 83.33% at stride 16, 95.83% at stride 8")


def surveyed(*label_values) -> Survey:
    found = Survey.empty(3)
    found.add(SPACE.to_train_ids(np.array(label_values, np.uint8)[None].repeat(8, 0), "x"))
    return found


def test_labels_that_look_shifted_are_pointed_out():
    assert hints(surveyed(0, *[1, 2, 3] * 10), SPACE) == []
    (absent, shifted) = hints(surveyed(0, 1, 2), SPACE)
    assert absent == "1 of 3 classes have not a single pixel: post"
    assert (
        "look shifted: the last class 'post' (value 3) never occurs, and 33% of all pixels have the value 0" in shifted
    )
    assert "set config.data.first_value=0 and config.data.void_value=255" in shifted
    (absent, shifted) = hints(surveyed(2, 3), SPACE)
    assert "look shifted: the first class 'sky' (value 1) never occurs, and no pixel is void" in shifted
    assert hints(Survey.empty(3), SPACE) == []


# --- values of one's own


def test_labels_that_count_from_zero():
    space = make_label_space(CLASSES, OwnValues(first_value=0, void_value=255))
    values = np.array([[0, 1, 2, 255]], np.uint8)
    np.testing.assert_array_equal(space.to_train_ids(values, "x"), [[0, 1, 2, VOID]])
    np.testing.assert_array_equal(space.to_file_values(np.array([[0, 1, 2, VOID]], np.uint8)), values)


def test_remapped_values_are_read_and_never_written():
    space = make_label_space(CLASSES, OwnValues(remap=" 7:1, 9 : void,200:3,2:3 "))
    values = np.array([[7, 1, 9, 0, 200, 2, 3]], np.uint8)
    train_ids = space.to_train_ids(values, "x")
    np.testing.assert_array_equal(train_ids, [[0, 0, VOID, VOID, 2, 2, 2]])
    np.testing.assert_array_equal(space.to_file_values(train_ids), [[1, 1, 0, 0, 3, 3, 3]])
    with pytest.raises(
        UserError, match=r"value 8 .*0 \(void\) or 1 … 3 \(3 classes\), or 2, 7, 9, 200 by config\.data\.remap"
    ):
        space.to_train_ids(np.full((1, 1), 8, np.uint8), "x")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (OwnValues(void_value=2), r"config\.data\.void_value=2 is the value of the class 'ground'.*first_value=0"),
        (OwnValues(first_value=0), r"config\.data\.void_value=0 is the value of the class 'sky'"),
        (OwnValues(first_value=254), r"config\.data\.first_value=254: the last of 3 classes would have the value 256"),
        (OwnValues(remap="7"), r"config\.data\.remap='7': '7' is no VALUE:CLASS.*like \"7:1,9:void\""),
        (OwnValues(remap="7:sky"), r"'7:sky' is no VALUE:CLASS"),
        (OwnValues(remap="256:1"), r"'256:1' is no VALUE:CLASS with a value from 0 to 255"),
        (OwnValues(remap="-1:1"), r"'-1:1' is no VALUE:CLASS"),
        (OwnValues(remap="7:4"), r"config\.data\.remap='7:4': 4 is no class: expected 0 \(void\) or 1 … 3"),
        (OwnValues(remap="7:1,7:2"), r"7 is given twice"),
        (OwnValues(remap="0:1"), r"0 is void; set config\.data\.void_value"),
    ],
)
def test_values_that_do_not_fit_together_are_explained(own, message):
    with pytest.raises(UserError, match=message):
        make_label_space(CLASSES, own)


def test_only_a_folder_has_values_of_the_users_own():
    with pytest.raises(UserError, match=r"are for config\.data\.name=folder; scenes has label values of its own"):
        open_dataset("scenes", None, None, own_values=OwnValues(remap="7:1"))


# --- pairs that cannot be used


@pytest.fixture
def spoilt(tmp_path, monkeypatch):
    """Six pairs, of which the second and fifth cannot be used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_folder(tmp_path / "data", {"training": 6, "validation": 3})
    (folder / "images" / "training" / "training_1.jpg").write_bytes(b"broken")
    Image.fromarray(np.full((48, 64), 77, np.uint8)).save(folder / "annotations" / "training" / "training_4.png")
    return folder


def test_skipping_leaves_bad_pairs_out_and_says_so(spoilt, caplog, monkeypatch):
    dataset = open_dataset("folder", str(spoilt), None, on_error="skip")
    source = dataset.open_split("training")
    assert [source[i]["name"] for i in range(len(source))] == [f"training_{i}" for i in (0, 2, 3, 5)]
    assert "2 of 6 pairs of" in caplog.text and "training_1.jpg cannot be decoded" in caplog.text
    monkeypatch.setattr(survey_lib, "survey", lambda *_: pytest.fail("read again"))
    check_once(dataset.open_split("training"), dataset.label_space, "training")


def test_skipping_keeps_the_draw_of_the_holdout(spoilt):
    def draw(**kwargs):
        dataset = open_dataset("folder", str(spoilt), None, holdout=3, **kwargs)
        return [
            [source[i]["name"] for i in range(len(source))]
            for source in map(dataset.open_split, ("training", "holdout"))
        ]

    for kept, all_of_them in zip(draw(on_error="skip"), draw(), strict=True):
        assert kept == [name for name in all_of_them if name not in ("training_1", "training_4")]


def test_nothing_is_left_of_a_split_that_is_all_bad(spoilt):
    for image in (spoilt / "images" / "validation").iterdir():
        image.write_bytes(b"")
    dataset = open_dataset("folder", str(spoilt), None, on_error="skip")
    with pytest.raises(UserError, match="none of the 3 pairs can be used, the first: .*validation_0.jpg"):
        dataset.open_split("validation")


def parse_flags():
    """Grain's worker processes read flags."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def batches(folder, on_error, count=6, **kwargs):
    dataset = open_dataset("folder", str(folder), None)  # its checks are what is passed by here
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
def test_a_record_that_turns_bad_while_training_is_named(spoilt, workers):
    parse_flags()
    stream = batches(spoilt, "stop", workers=workers)
    # The whole message, and nothing that Grain adds.
    with pytest.raises(
        UserError, match=r"training_(1\.jpg|4\.png).*(remove it from the data set|config\.data\.remap)$"
    ):
        for _ in range(3):
            next(stream)
    stream.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_skipped_record_is_replaced_counted_and_said_once(spoilt, caplog, workers):
    parse_flags()
    stream = batches(spoilt, "skip", workers=workers)
    found = [next(stream) for _ in range(6)]  # two epochs
    stream.close()
    assert all(set(batch) == {"image", "label"} and batch["image"].shape == (2, 64, 64, 3) for batch in found)
    assert stream.num_skipped == 4
    messages = [message for message in caplog.messages if message.startswith("skipped, another record takes its place")]
    assert sorted("training_1.jpg" in message for message in messages) == [False, True]
    again = batches(spoilt, "skip", first_step=3)
    for batch in found[3:]:
        np.testing.assert_array_equal(next(again)["image"], batch["image"])


def test_a_source_without_a_readable_record_is_an_error(spoilt):
    for image in (spoilt / "images" / "training").iterdir():
        image.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 6 records in a row can be read, the first: .*training_\d\.jpg"):
        next(batches(spoilt, "skip"))


def test_a_killed_worker_is_explained():
    def killed():
        raise RuntimeError("Grain worker process 0 was terminated unexpectedly with exit code -9.\nmore")
        yield

    with pytest.raises(UserError, match=r"exit code -9\.\): most likely memory is short; lower config\.data\.workers"):
        next(pipeline.TrainingBatches(killed()))

    def failing():
        raise RuntimeError("another thing")
        yield

    with pytest.raises(RuntimeError, match="another thing"):
        next(pipeline.TrainingBatches(failing()))


# --- on the command line


def test_validate_hints_at_labels_that_count_from_zero(tmp_path):
    folder = write_folder(tmp_path / "data", {"training": 3, "validation": 2})
    for path in (folder / "annotations").rglob("*.png"):
        values = np.asarray(Image.open(path))
        Image.fromarray(np.where(values == 0, 255, values - 1).astype(np.uint8)).save(path)
    base = [
        "--mode=validate",
        "--config=configs/scenes.py",
        "--config.data.name=folder",
        f"--config.data.root={folder}",
    ]
    assert "value 255" in error_of(run(*base))
    hinted = run(*base, "--config.data.remap=255:void", check=0)
    assert "the labels look shifted: the last class 'post'" in hinted.stdout
    done = run(*base, "--config.data.first_value=0", "--config.data.void_value=255", check=0)
    assert "hint (" not in done.stdout and "    0  sky" in done.stdout
