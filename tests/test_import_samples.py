"""Samples of label tools, where they are at hand: LabelMe's own converter agrees, and each sample trains two steps."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import TINY, call
from support.imports import import_from, label_maps

PLACES = [folder / "shared" / "data" / "formats" for folder in Path(__file__).resolve().parents]
SHARED = next((place for place in PLACES if place.is_dir()), PLACES[0])
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the samples are not here")

SAMPLES = {
    "labelme": "labelme",
    "pascal_voc": "pascal_voc",
    "coco_instances": "coco",
    "coco_mmdet_layout": "coco",
    "cityscapes": "cityscapes",
    "cvat_xml/export_project": "cvat_xml",
    "cvat_xml/export_task": "cvat_xml",
    "colour_masks/dataset": "color_masks",
    "colour_masks/non_standard_dataset": "color_masks",
}


def test_labelme_agrees_with_its_own_converter(tmp_path):
    """`labelme2voc` drew these three photographs. `__ignore__` is 255 there, and the background is 0."""
    import_from(SHARED / "labelme", tmp_path / "data")
    names = (SHARED / "labelme" / "reference_output" / "class_names.txt").read_text().split("\n")
    assert (tmp_path / "data" / "classes.txt").read_text().split("\n")[: len(names)] == names[: len(names)]
    found, equal, total = label_maps(tmp_path / "data"), 0, 0
    for path in sorted((SHARED / "labelme" / "reference_output" / "SegmentationClass").glob("*.png")):
        expected = (np.asarray(Image.open(path)).astype(int) + 1) % 256
        equal += int((found[path.stem] == expected).sum())
        total += expected.size
    assert equal / total >= 0.995


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_is_recognized_and_imported(sample, tmp_path):
    summary = import_from(SHARED / sample, tmp_path / "data")
    assert summary["format"] == SAMPLES[sample]
    assert sum(summary["images"].values()) >= 1
    assert sum(item["share"] for item in summary["classes"]) > 0.3


@pytest.mark.slow  # each compiles a program for its own number of classes
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_trains_two_steps(sample, tmp_path):
    summary = import_from(SHARED / sample, tmp_path / "data")
    split = "validation" if "validation" in summary["images"] else "training"
    small = [
        word for word in TINY if not word.startswith(("--config.training", "--config.evaluation", "--config.data.crop"))
    ]
    done = call(
        *(
            "train",
            "--config=scenes",
            *small,
            f"--config.data.root={tmp_path / 'data'}",
            f"--workdir={tmp_path / 'run'}",
        ),
        *(
            "--config.data.crop_px=32",
            "--config.data.workers=0",
            "--config.training.batch_size=2",
            "--config.training.steps=2",
        ),
        *("--config.training.evaluate_every=2", "--config.training.warmup_steps=0", "--config.parallel.data=1"),
        *(
            f"--config.evaluation.split={split}",
            "--config.evaluation.batch_size=1",
            "--config.evaluation.analysis=False",
        ),
        *("--config.evaluation.num_pictures=0", "--config.model.dtype=float32"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") >= 1
    assert list((tmp_path / "run" / "evaluation").glob("*-2.json"))
