"""Dataset reports: counts, tables, and hints at probable mistakes."""

import json

import numpy as np
import pytest
from PIL import Image
from support.command_line import error_of, run
from support.data_sets import CLASSES, write_folder

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.hints import hints
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.data.report_table import table
from pyrseg_jax.data.unit_cells import count_cells

SPACE = ade_layout(CLASSES)

# --- counting


def count_slowly(label, strides, num_classes):
    """Count cell by cell."""
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
def test_cell_counts_equal_a_slow_count(rng, strides, num_classes):
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


def test_cell_counts_equal_those_of_training_targets(rng):
    from pyrseg_jax.pyramid import build_targets

    label = np.kron(rng.integers(0, 4, (8, 8)), np.ones((16, 16), int)).astype(np.uint8)
    label[rng.random(label.shape) < 0.1] = VOID
    found = count_cells(label, (32, 16, 8), 4)
    unity = build_targets(label[None]).unity
    np.testing.assert_array_equal(found.cells, [[(level == 1).sum(), (level == 0).sum()] for level in unity])


def test_an_image_smaller_than_a_cell_counts_no_cell():
    found = DatasetReport.empty(3)
    found.add(np.ones((20, 50), np.uint8))
    assert found.num_images == 1 and found.pixels[1] == 1000 and found.cells.sum() == found.cell_pixels.sum() == 0


def test_reports_add_up_and_survive_json(rng):
    maps = [rng.choice([0, 1, 2, VOID], (40 + 8 * (i % 2), 64)).astype(np.uint8) for i in range(4)]
    whole, parts = DatasetReport.empty(3), [DatasetReport.empty(3), DatasetReport.empty(3)]
    for i, label in enumerate(maps):
        whole.add(label)
        parts[i % 2].add(label)
    parts[1].problems.append((7, "bad"))
    whole.problems.append((7, "bad"))
    parts[0].merge(DatasetReport.from_json(json.loads(json.dumps(parts[1].to_json()))))
    assert parts[0].to_json() == whole.to_json()
    assert whole.num_images == 4 and whole.sizes == {(40, 64): 2, (48, 64): 2}


# --- tables and hints


def test_the_table_shows_the_counts():
    found = DatasetReport.empty(3)
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
    assert lines[5] == "1 size (width × height): from 32 × 64 to 32 × 64, median 32 × 64"
    assert lines[6].endswith("a labeled pixel: 50.00% at stride 32, 83.33% at stride 16, 95.83% at stride 8")


def report_of(*label_values) -> DatasetReport:
    found = DatasetReport.empty(3)
    found.add(SPACE.to_train_ids(np.array(label_values, np.uint8)[None].repeat(8, 0), "x"))
    return found


def test_labels_that_look_shifted_are_pointed_out():
    assert hints(report_of(0, *[1, 2, 3] * 10), SPACE) == []
    (absent, shifted) = hints(report_of(0, 1, 2), SPACE)
    assert absent == "1 of 3 classes have no pixels: post"
    assert (
        "look shifted: the last class 'post' (value 3) never occurs, and 33% of all pixels have the value 0" in shifted
    )
    assert "set first_value=0 and void_value=255" in shifted
    (absent, shifted) = hints(report_of(2, 3), SPACE)
    assert "look shifted: the first class 'sky' (value 1) never occurs, and no pixel is void" in shifted
    assert hints(DatasetReport.empty(3), SPACE) == []


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
    error = error_of(run(*base))
    assert "value 255" in error and "say what the value means with config.data.remap=VALUE:CLASS" in error
    hinted = run(*base, "--config.data.remap=255:void", check=0)
    assert "the labels look shifted: the last class 'post'" in hinted.stdout
    assert "set config.data.first_value=0 and config.data.void_value=255" in hinted.stdout
    done = run(*base, "--config.data.first_value=0", "--config.data.void_value=255", check=0)
    assert "hint (" not in done.stdout and "    0  sky" in done.stdout
