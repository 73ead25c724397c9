"""Broken inputs: each import ends with one clear line, leaves nothing behind, and changes nothing in the source."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from support import label_tools, mask_folders
from support.broken_masks import BROKEN_MASKS, BROKEN_TABLES
from support.broken_objects import BROKEN_OBJECTS
from support.import_damages import cut, json_file
from support.imports import import_from, label_maps, toy_scenes

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.color_maps import find_colors

BROKEN = BROKEN_OBJECTS | BROKEN_MASKS | BROKEN_TABLES


def test_there_are_many_kinds():
    assert len(BROKEN) >= 40


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_source_is_one_clear_line(name, tmp_path):
    if name in BROKEN_TABLES:
        pytest.importorskip("pyarrow")
    broken = BROKEN[name]
    source = tmp_path / "source"
    broken.write(toy_scenes(), source)
    broken.damage(source)
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in source.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as caught:
        import_from(source, tmp_path / "data", **broken.options)
    message = str(caught.value)
    assert re.search(broken.message, message), message
    assert "\n" not in message and len(message) < 1000, message
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in source.rglob("*") if path.is_file()} == before


def test_bad_pictures_can_be_left_out_and_are_counted(tmp_path):
    label_tools.write_coco(toy_scenes(), tmp_path / "source")
    cut("images/train2017/picture_1.png")(tmp_path / "source")
    summary = import_from(tmp_path / "source", tmp_path / "data", is_skipping=True)
    assert summary["images"] == {"training": 2, "validation": 1}
    assert sorted(label_maps(tmp_path / "data")) == ["picture_0", "picture_2", "picture_3"]
    (note,) = summary["skipped"]
    assert (note["reason"], note["count"]) == ("picture that cannot be used", 1)
    assert "picture_1.png is damaged" in note["first"]


def test_a_split_of_which_nothing_is_left_is_an_error(tmp_path):
    label_tools.write_coco(toy_scenes(), tmp_path / "source")
    cut("images/val2017/picture_3.png")(tmp_path / "source")
    with pytest.raises(
        UserError, match="no picture for validation can be used; the first problem: .*picture_3.png is damaged"
    ):
        import_from(tmp_path / "source", tmp_path / "data", is_skipping=True)


UNSUPPORTED = {
    "Label Studio's JSON-MIN": (
        "a.json",
        [{"image": "a.jpg", "id": 1, "label": [], "annotation_id": 1, "annotator": 1}],
    ),
    "a file of VGG Image Annotator": ("a.json", {"a.jpg12": {"filename": "a.jpg", "size": 12, "regions": []}}),
    "a file of Supervisely": ("ann/a.json", {"tags": [], "size": {"height": 1, "width": 1}, "objects": []}),
    r"a file of Darwin \(V7\)": ("a.json", {"version": "2.0", "item": {"name": "a.jpg"}, "annotations": []}),
    "a release of Segments.ai": ("a.json", {"name": "a", "dataset": {"samples": []}}),
    "a file of Cityscapes' polygons": ("a_gtFine_polygons.json", {"imgHeight": 1, "imgWidth": 1, "objects": []}),
    "a file of PASCAL VOC's boxes": ("a.xml", "<annotation><filename>a.jpg</filename></annotation>"),
    "a table of VGG Image Annotator": ("a.csv", "filename,file_size,file_attributes,region_count\n"),
    "a list of Darknet's YOLO": ("obj.names", "cat\n"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_known_formats_that_are_not_read_are_named(name, tmp_path):
    place, content = UNSUPPORTED[name]
    label_tools.write(tmp_path / "source" / place, content if isinstance(content, str) else json.dumps(content))
    label_tools.write(tmp_path / "source" / "a.jpg", b"a photograph")
    with pytest.raises(
        UserError, match=rf"{place} is {name}, which is not read: .*\. The formats that are read are coco, "
    ):
        import_from(tmp_path / "source", tmp_path / "data")


def test_a_damaged_zip_is_one_clear_line(tmp_path):
    (tmp_path / "export.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match=r"export.zip cannot be unpacked \(.*export it again"):
        import_from(tmp_path / "export.zip", tmp_path / "data")


def test_a_name_cannot_lead_out_of_the_source(tmp_path):
    """A file name in annotations is only ever looked up among the files of the source."""
    label_tools.write(tmp_path / "secret.png", label_tools.png(np.zeros((24, 28, 3), np.uint8)))
    label_tools.write_labelme(toy_scenes(), tmp_path / "source")
    path = tmp_path / "source" / "train" / "picture_0.json"
    path.write_text(path.read_text().replace('"picture_0.png"', '"../../secret.png"'))
    with pytest.raises(UserError, match="names the image '../../secret.png', which is not below"):
        import_from(tmp_path / "source", tmp_path / "data")


def test_found_colors_are_proposed_as_a_list(tmp_path):
    """The list is written beside the output; with names in it, the same command works."""
    mask_folders.write_color_masks(toy_scenes(), tmp_path / "source")
    (tmp_path / "source" / "class_dict.csv").unlink()
    proposal = tmp_path / "data_classes.csv"
    with pytest.raises(
        UserError, match=rf"4 colors .*{proposal} now lists them; replace the names .*--classes={proposal}"
    ):
        import_from(tmp_path / "source", tmp_path / "data", proposal=proposal)
    summary = import_from(tmp_path / "source", tmp_path / "data", classes=proposal)
    assert sorted(item["name"] for item in summary["classes"]) == sorted(
        "color_{:02x}{:02x}{:02x}".format(*label_tools.color_of(value)) for value in range(4)
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("smoothed", "the borders look smoothed or compressed; export the masks again"),
        ("noise", "looks like a photograph"),
    ],
)
def test_masks_of_too_many_colors_are_refused(kind, message, rng):
    colors = rng.integers(0, 255, (64, 64, 3), np.uint8)
    if kind == "smoothed":
        colors = np.zeros((640, 640, 3), np.uint8)
        colors[:, 300:301] = rng.integers(0, 255, (640, 1, 3), np.uint8)
    with pytest.raises(UserError, match=message):
        find_colors([("mask.png", colors)])


def masks_alone(scenes, root) -> None:
    mask_folders.write_index_masks(scenes, root)
    shutil.rmtree(root / "images")


def images_alone(scenes, root) -> None:
    label_tools.write_images(scenes, root, "{split}/{name}.png")


NEAREST = {
    "coco": (
        label_tools.write_coco,
        lambda root: [
            json_file(str(path), lambda d: d.pop("categories") and None)(root) for path in root.rglob("*.json")
        ],
        r"It is most like coco, but annotations/instances_train2017.json lacks categories\.",
    ),
    "labelme": (
        label_tools.write_labelme,
        lambda root: [
            json_file(str(path), lambda d: [d.pop(key, None) for key in ("imagePath", "imageData")] and None)(root)
            for path in root.rglob("*.json")
        ],
        r"It is most like labelme, but train/picture_0.json lacks imagePath\.",
    ),
    "voc": (
        label_tools.write_voc,
        lambda root: shutil.rmtree(root / "SegmentationClass"),
        r"It is most like pascal_voc, but beside JPEGImages, the folder SegmentationClass is missing\.",
    ),
    "yolo": (
        label_tools.write_yolo,
        lambda root: ((root / "labels").rename(root / "texts"), (root / "data.yaml").unlink()),
        r"It is most like yolo, but texts/train/picture_0.txt is not in a folder called labels",
    ),
    "masks alone": (
        masks_alone,
        lambda root: None,
        r"There are masks such as labels/train/picture_0.png, but no photo",
    ),
    "photographs alone": (
        images_alone,
        lambda root: None,
        r"There are pictures such as train/picture_0.png, but no masks",
    ),
}


@pytest.mark.parametrize("name", NEAREST)
def test_an_unknown_source_is_told_what_is_missing(name, tmp_path):
    write, damage, message = NEAREST[name]
    write(toy_scenes(), tmp_path / "source")
    damage(tmp_path / "source")
    with pytest.raises(UserError, match=rf"source is of no known format\. It holds .*{message}") as caught:
        import_from(tmp_path / "source", tmp_path / "data")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 400
    assert "docs/guide/importing.md" in str(caught.value)
