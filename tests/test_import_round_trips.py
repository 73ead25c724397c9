"""Scenes that are exported to a format and imported from it again are equal: to the pixel, wherever the format can hold that."""

import functools
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from support import label_tools, mask_folders
from support.imports import agreement, import_from, label_maps, toy_scenes
from support.label_tools import Sample, Scenes, nested_rings

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BY_AREA
from pyrseg_jax.importing.mask_pairs import loose_stem
from pyrseg_jax.importing.objects import Object, paint_objects, polygon_filler
from pyrseg_jax.importing.summary import summary_text
from pyrseg_jax.scenes import CLASS_NAMES, paint_scene

EXACT = {
    "coco polygons": ("coco", functools.partial(label_tools.write_coco, style="polygons")),
    "coco compressed RLE": ("coco", functools.partial(label_tools.write_coco, style="compressed")),
    "coco RLE": ("coco", functools.partial(label_tools.write_coco, style="runs")),
    "coco panoptic": ("coco_panoptic", label_tools.write_panoptic),
    "labelme polygons": ("labelme", label_tools.write_labelme),
    "labelme masks": ("labelme", functools.partial(label_tools.write_labelme, style="mask")),
    "cvat polygons": ("cvat_xml", label_tools.write_cvat),
    "cvat masks in XML": ("cvat_xml", functools.partial(label_tools.write_cvat, style="mask")),
    "cvat segmentation mask": ("cvat_masks", functools.partial(label_tools.write_voc, label_map=True)),
    "yolo": ("yolo", label_tools.write_yolo),
    "label studio brush": ("label_studio", label_tools.write_label_studio),
    "label studio polygons": ("label_studio", functools.partial(label_tools.write_label_studio, style="polygon")),
    "mapillary": ("mapillary", mask_folders.write_mapillary),
    "color masks": ("color_masks", mask_folders.write_color_masks),
    "palette masks": ("color_masks", functools.partial(mask_folders.write_color_masks, style="palette")),
    "index masks": ("index_masks", mask_folders.write_index_masks),
    "class folders": ("class_folders", mask_folders.write_class_folders),
    "hugging face parquet": ("hugging_face", mask_folders.write_hugging_face),
    "hugging face arrow": ("hugging_face", functools.partial(mask_folders.write_hugging_face, style="arrow")),
}


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    samples = []
    for i, split in enumerate(("train", "train", "val")):
        image, label = (array[80:176, 80:176].copy() for array in paint_scene("training", i))
        samples.append(Sample(f"scene_{i:03d}", split, image, label))
    return Scenes(tuple(CLASS_NAMES), tuple(samples))


def fingerprint(folder) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("name", EXACT)
def test_masks_runs_and_polygons_come_back_to_the_pixel(name, scenes, tmp_path):
    if "hugging" in name:
        pytest.importorskip("pyarrow")
    format_name, write = EXACT[name]
    write(scenes, tmp_path / "source")
    before = fingerprint(tmp_path / "source")
    summary = import_from(tmp_path / "source", tmp_path / "data", unlabeled="void")
    assert summary["format"] == format_name
    stem_of = functools.partial(row_name, scenes, name) if "hugging" in name else lambda sample: sample.name
    # A polygon of LabelMe is drawn with its outline, so a line of single pixels may get a neighbor.
    least = 0.999 if name == "labelme polygons" else 1.0
    assert agreement(scenes, tmp_path / "data", stem_of, has_splits=name != "class folders") >= least
    assert summary["images"] == {"training": 2, "validation": 1}
    assert fingerprint(tmp_path / "source") == before


def row_name(scenes, name, sample) -> str:
    """Return the name of a picture that lies in a row of a table."""
    split = {"train": "train", "val": "validation"}[sample.split]
    row = [other.name for other in scenes.samples if other.split == sample.split].index(sample.name)
    return f"{split}{'_data' if 'arrow' in name else ''}-00000-of-00001_{row:06d}"


def test_label_maps_of_a_table_with_three_equal_channels_are_read_as_one(scenes, tmp_path):
    pytest.importorskip("pyarrow")
    mask_folders.write_hugging_face(scenes, tmp_path / "source", num_channels=3)
    summary = import_from(tmp_path / "source", tmp_path / "data")
    assert agreement(scenes, tmp_path / "data", functools.partial(row_name, scenes, "parquet")) == 1
    (remark,) = summary["remarks"]
    assert (remark["remark"], remark["count"]) == ("label map with three equal channels, which was read as one", 3)
    assert "note: 3 × label map with three equal channels" in summary_text(summary)


def test_voc_comes_back_with_the_names_of_the_list(scenes, tmp_path):
    label_tools.write_voc(scenes, tmp_path / "source")
    label_tools.write(tmp_path / "names.txt", "\n".join(scenes.names))
    summary = import_from(tmp_path / "source", tmp_path / "data", classes=tmp_path / "names.txt")
    assert summary["format"] == "pascal_voc"
    assert agreement(scenes, tmp_path / "data") == 1.0


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationClassPNG"])
def test_voc_with_names_of_its_own_comes_back(folder, scenes, tmp_path):
    """LabelMe's `labelme2voc` writes `class_names.txt`; older versions keep arrays in SegmentationClass."""
    label_tools.write_voc(scenes, tmp_path / "source")
    (tmp_path / "source" / "SegmentationClass").rename(tmp_path / "source" / folder)
    label_tools.write(tmp_path / "source" / "SegmentationClass" / "scene_000.npy", b"an array")
    (tmp_path / "source" / "class_names.txt").write_text("\n".join(scenes.names))
    assert import_from(tmp_path / "source", tmp_path / "data")["format"] == "pascal_voc"
    assert agreement(scenes, tmp_path / "data") == 1


@pytest.mark.parametrize(
    ("name", "line"), [("day 1/{}", "day 1/{}"), ("{} a", '"{} a"'), ("{}", "{}.jpg"), ("{}", "{} 1")]
)
def test_lists_of_voc_name_pictures_in_many_ways(name, line, scenes, tmp_path):
    """CVAT keeps the folders of pictures, and Datumaro puts quotes around names with spaces."""
    label_tools.write_voc(scenes, tmp_path / "source", label_map=True)
    for kind in ("JPEGImages", "SegmentationClass"):
        for path in list((tmp_path / "source" / kind).iterdir()):
            target = path.parent / f"{name.format(path.stem)}{path.suffix}"
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
    for path in (tmp_path / "source" / "ImageSets" / "Segmentation").iterdir():
        path.write_text("\r\n".join(line.format(stem) for stem in path.read_text().split()))
    import_from(tmp_path / "source", tmp_path / "data")
    assert agreement(scenes, tmp_path / "data", lambda sample: name.format(sample.name).rpartition("/")[2]) == 1


@pytest.mark.parametrize("kind", ["palette", "gray"])
def test_masks_in_bmp_keep_their_colors(kind, scenes, tmp_path):
    write = functools.partial(mask_folders.write_color_masks, style="palette")
    (write if kind == "palette" else mask_folders.write_index_masks)(scenes, tmp_path / "source")
    for path in (tmp_path / "source").rglob("*.png"):
        if "images" not in path.parts:
            Image.open(path).save(path.with_suffix(".bmp"))
            path.unlink()
    assert import_from(tmp_path / "source", tmp_path / "data")["format"].startswith(
        "color" if kind == "palette" else "ind"
    )
    assert agreement(scenes, tmp_path / "data") == 1


@pytest.mark.parametrize("kind", ["labelIds", "instanceIds"])
def test_cityscapes_comes_back(kind, scenes, tmp_path):
    mask_folders.write_cityscapes(scenes, tmp_path / "source", kind)
    assert import_from(tmp_path / "source", tmp_path / "data")["format"] == "cityscapes"
    found = label_maps(tmp_path / "data")
    for sample in scenes.samples:
        np.testing.assert_array_equal(found[f"{sample.name}_leftImg8bit"], sample.label)


def test_cityscapes_with_a_list_of_its_own_comes_back(scenes, tmp_path):
    """CVAT and Datumaro number the classes of any project in this layout."""
    mask_folders.write_cityscapes(scenes, tmp_path / "source")
    for sample in scenes.samples:
        path = tmp_path / "source" / "gtFine" / sample.split / "town" / f"{sample.name}_gtFine_labelIds.png"
        path.write_bytes(label_tools.png(sample.label))
    lines = [f"{i} 0 {i} {name}" for i, name in enumerate(scenes.with_void)]
    label_tools.write(tmp_path / "source" / "label_colors.txt", "\n".join(lines))
    import_from(tmp_path / "source", tmp_path / "data")
    assert agreement(scenes, tmp_path / "data", lambda sample: f"{sample.name}_leftImg8bit") == 1


def test_stuff_maps_come_back(scenes, tmp_path):
    mask_folders.write_stuff_maps(scenes, tmp_path / "source")
    assert import_from(tmp_path / "source", tmp_path / "data")["format"] == "coco_stuff_maps"
    found = label_maps(tmp_path / "data")
    for sample in scenes.samples:
        np.testing.assert_array_equal(found[sample.name], sample.label)


@pytest.mark.parametrize("high", [1, 255])
def test_binary_masks_come_back(high, scenes, tmp_path):
    mask_folders.write_binary_masks(scenes, tmp_path / "source", high)
    summary = import_from(tmp_path / "source", tmp_path / "data")
    assert summary["format"] == "binary_masks"
    assert [item["name"] for item in summary["classes"]] == ["background", "foreground"]
    found = label_maps(tmp_path / "data")
    for sample in scenes.samples:
        np.testing.assert_array_equal(found[sample.name] == 2, sample.label == len(scenes.names))


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        ("train_masks/{}_mask.gif", {}),
        ("train_masks/{}_mask.gif", {"inverted": True}),
        ("masks/{}.webp", {"lossless": True}),
        ("masks/{}.png", {"bits": 16}),
    ],
)
def test_binary_masks_of_other_file_formats_come_back(mask, options, scenes, tmp_path):
    """Programs number the two colors of a GIF in any order."""
    label_tools.write_images(scenes, tmp_path / "source", "train/{name}.png")
    for sample in scenes.samples:
        path = tmp_path / "source" / mask.format(sample.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        inside = sample.label == 1
        assert 0 < inside.sum() < inside.size
        image = Image.fromarray(inside.astype(np.uint8) * 255)
        if "bits" in options:
            image = Image.fromarray(inside.astype(np.uint16) * 65535)
        if "inverted" in options:
            image = Image.fromarray((~inside).astype(np.uint8))
            image.putpalette([255, 255, 255, 0, 0, 0])
        image.save(path, optimize=False, lossless=True)
    summary = import_from(tmp_path / "source", tmp_path / "data")
    assert summary["format"] == "binary_masks"
    for sample in scenes.samples:
        np.testing.assert_array_equal(label_maps(tmp_path / "data")[sample.name], 1 + (sample.label == 1))


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_masks_with_colors_in_gif_and_lossless_webp_come_back(suffix, scenes, tmp_path):
    mask_folders.write_color_masks(scenes, tmp_path / "source", style="rgb")
    for path in (tmp_path / "source").rglob("masks/*.png"):
        image = Image.open(path).convert("RGB")
        image = image.quantize() if suffix == "gif" else image
        image.save(path.with_suffix(f".{suffix}"), lossless=True)
        path.unlink()
    assert import_from(tmp_path / "source", tmp_path / "data")["format"] == "color_masks"
    assert agreement(scenes, tmp_path / "data") == 1


@pytest.mark.parametrize("style", ["brush", "polygon"])
def test_regions_of_label_studio_with_separate_labels_come_back(style, scenes, tmp_path):
    """With the tags `Brush` and `Labels`, each region has a result of its shape and one of its labels."""
    label_tools.write_label_studio(scenes, tmp_path / "source", style)
    path = tmp_path / "source" / "project.json"
    tasks = json.loads(path.read_text())
    for task in tasks:
        task["data"] = {"id": "an id", "note": "a street", "photo": f"/data/local-files/?d=x{task['data']['image']}"}
        results = []
        for i, result in enumerate(task["annotations"][0]["result"]):
            labels = result["value"].pop(f"{style}labels")
            results.append(result | {"id": str(i), "type": style})
            results.append(result | {"id": str(i), "type": "labels", "value": result["value"] | {"labels": labels}})
        task["annotations"][0]["result"] = results
    path.write_text(json.dumps(tasks))
    assert import_from(tmp_path / "source", tmp_path / "data")["skipped"] == []
    assert agreement(scenes, tmp_path / "data") == 1


def test_further_labels_and_missing_ones_of_label_studio_are_counted(tmp_path):
    label_tools.write_label_studio(toy_scenes(), tmp_path / "source", "polygon")
    path = tmp_path / "source" / "project.json"
    tasks = json.loads(path.read_text())
    first, second = tasks[0]["annotations"][0]["result"][:2]
    first["value"]["polygonlabels"].append("another")
    second.update(type="polygon", id="alone")
    path.write_text(json.dumps(tasks))
    notes = import_from(tmp_path / "source", tmp_path / "data")["skipped"]
    assert {note["reason"] for note in notes} == {
        "further label of a region (the first counts)",
        "region without a label",
    }


@pytest.mark.parametrize("names", ["classes.txt", "quoted", "truth"])
def test_yolo_takes_its_names_as_they_are_written(names, scenes, tmp_path):
    """Label Studio writes `classes.txt`; YAML would turn `yes` and `off` into truth values."""
    label_tools.write_yolo(scenes, tmp_path / "source")
    written = scenes.with_void
    if names == "classes.txt":
        (tmp_path / "source" / "data.yaml").unlink()
        (tmp_path / "source" / "classes.txt").write_text("\n".join(scenes.with_void))
    elif names == "quoted":
        keys = "".join(f"  '{i}': {name}\n" for i, name in enumerate(scenes.with_void))
        (tmp_path / "source" / "data.yaml").write_text(f"names:\n{keys}")
    else:
        written = ("void", "off", "yes", *scenes.names[2:])
        (tmp_path / "source" / "data.yaml").write_text(f"names: [{', '.join(written)}]")
    import_from(tmp_path / "source", tmp_path / "data")
    assert agreement(scenes._replace(names=written[1:]), tmp_path / "data") == 1


def test_a_list_of_a_split_is_not_taken_for_labels_of_the_same_name(tmp_path):
    scenes = toy_scenes()
    scenes = scenes._replace(samples=(scenes.samples[0]._replace(name="train"), *scenes.samples[1:]))
    label_tools.write_yolo(scenes, tmp_path / "source")
    for folder in ("images", "labels"):
        for path in list((tmp_path / "source" / folder).rglob("*.*")):
            path.rename(tmp_path / "source" / folder / path.name)
    for split in ("train", "val"):
        lines = [f"./images/{sample.name}.png\n" for sample in scenes.samples if sample.split == split]
        (tmp_path / "source" / f"{split}.txt").write_text("".join(lines))
    text = (tmp_path / "source" / "data.yaml").read_text()
    text = text.replace("images/train", "train.txt").replace("images/val", "val.txt")
    (tmp_path / "source" / "data.yaml").write_text(text)
    import_from(tmp_path / "source", tmp_path / "data")
    assert agreement(scenes, tmp_path / "data") == 1


@pytest.mark.parametrize("form", ["{i} {name}", "{i}: {name}", "{i},{name}", "csv"])
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_in_a_list_of_classes_are_those_of_the_masks(form, first, scenes, tmp_path):
    mask_folders.write_index_masks(scenes, tmp_path / "source")
    (tmp_path / "source" / "classes.txt").unlink()
    for path in (tmp_path / "source" / "labels").rglob("*.png"):
        path.write_bytes(label_tools.png(np.asarray(Image.open(path)) + np.uint8(first)))
    line = "{i},{name}" if form == "csv" else form
    lines = ["id,name"] * (form == "csv") + [
        line.format(i=i, name=name) for i, name in enumerate(scenes.with_void, first)
    ]
    label_tools.write(tmp_path / "source" / ("classes.csv" if form == "csv" else "labels.txt"), "\n".join(lines))
    import_from(tmp_path / "source", tmp_path / "data")
    assert agreement(scenes, tmp_path / "data") == 1


def test_class_folders_in_splits_keep_pictures_of_one_name_apart(tmp_path):
    scenes = toy_scenes(2)
    for sample in scenes.samples:
        label_tools.write(tmp_path / "source" / "images" / sample.split / "0.png", label_tools.png(sample.image))
        for value, name in enumerate(scenes.with_void):
            mask = label_tools.png((sample.label == value).astype(np.uint8) * 255)
            label_tools.write(tmp_path / "source" / "masks" / sample.split / name / "0.png", mask)
    assert import_from(tmp_path / "source", tmp_path / "data")["format"] == "class_folders"
    assert agreement(scenes, tmp_path / "data", lambda sample: f"{sample.split}_0") == 1


@pytest.mark.parametrize("line", ["images/{}.png labels/{}.png", "{}", "/images/{}.png 1", "labels/{}.png"])
def test_lists_beside_plain_masks_decide_the_splits(line, tmp_path):
    """PaddleSeg and CamVid keep `train.txt` and `val.txt` beside the folders."""
    scenes = toy_scenes()
    label_tools.write_images(scenes, tmp_path / "source", "images/{name}.png")
    for sample in scenes.samples:
        label_tools.write(tmp_path / "source" / "labels" / f"{sample.name}.png", label_tools.png(sample.label))
    label_tools.write(tmp_path / "source" / "classes.txt", "\n".join(scenes.with_void))
    for split in ("train", "val"):
        lines = [line.format(sample.name, sample.name) for sample in scenes.samples if sample.split == split]
        label_tools.write(tmp_path / "source" / f"{split}.txt", "\n".join(lines))
    import_from(tmp_path / "source", tmp_path / "data")
    assert agreement(scenes, tmp_path / "data") == 1


def two_values(root, name: str, content: str, values=(0, 255)) -> None:
    """Write masks of two values, with a list of classes beside them."""
    for i in range(14):
        mask = np.full((8, 8), values[0], np.uint8)
        mask[2:5, 2:6] = values[1]
        label_tools.write(root / "masks" / f"{i:02d}.png", label_tools.png(mask))
        label_tools.write(root / "images" / f"{i:02d}.png", label_tools.png(np.full((8, 8, 3), 9 * i, np.uint8)))
    label_tools.write(root / name, content)


@pytest.mark.parametrize(
    ("name", "content", "values", "inside"),
    [
        ("classes.txt", "road\nhouse\n", (0, 1), "house"),
        ("classes.txt", "house\n", (0, 255), "house"),
        ("_classes.csv", "Pixel Value, Class\r\n0, ground\r\n1, house\r\n", (0, 1), "house"),
        ("classes.txt", "road\nhouse\ntree\n", (0, 1), "house"),
        ("class_dict.csv", "name,r,g,b\nhouse,255,255,255\nroad,0,0,0\n", (0, 255), "house"),
    ],
)
def test_a_list_beside_masks_of_two_values_names_them(name, content, values, inside, tmp_path):
    two_values(tmp_path / "source", name, content, values)
    summary = import_from(tmp_path / "source", tmp_path / "data")
    names = [item["name"] for item in summary["classes"]]
    assert names[label_maps(tmp_path / "data")["00"][3, 3] - 1] == inside
    assert "foreground" not in names


def test_a_list_with_colors_says_which_value_of_two_is_the_class(tmp_path):
    two_values(tmp_path / "source", "../classes.csv", "name,r,g,b\nhouse,255,255,255\nroad,0,0,0\n")
    import_from(tmp_path / "source", tmp_path / "data", classes=tmp_path / "classes.csv")
    names = (tmp_path / "data" / "classes.txt").read_text().split()
    assert names[label_maps(tmp_path / "data")["00"][3, 3] - 1] == "house"


def test_a_third_class_in_few_masks_is_found_by_the_list(tmp_path):
    two_values(tmp_path / "source", "classes.txt", "road\nhouse\ntree\n", (0, 1))
    path = tmp_path / "source" / "masks" / "01.png"
    path.write_bytes(label_tools.png(2 * np.asarray(Image.open(path))))
    import_from(tmp_path / "source", tmp_path / "data")
    assert label_maps(tmp_path / "data")["01"][3, 3] == 3


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{split}_images/{name}.png", "{split}_masks/{name}.png"),
        ("{split}/{name}.png", "{split}_labels/{name}_L.png"),
        ("{split}/{name}.png", "{split}annot/{name}.png"),
        ("images/{split}/{name}.jpg", "masks/{split}/{name}.jpg.png"),
        ("img_dir/{split}/{name}.png", "ann_dir/{split}/{name}.png"),
        ("segmentation/images/{split}/{name}.png", "segmentation/masks/{split}/{name}.png"),
        ("original_images/{split}/{name}.png", "label_images_semantic/{split}/{name}.png"),
        ("img/{split}/{name}.png", "masks_machine/{split}/{name}.png"),
        ("{split}/image_2/{name}.png", "{split}/gt_image_2/{name}.png"),
        ("Task1_{split}_Input/{name}.jpg", "Task1_{split}_GroundTruth/{name}_segmentation.png"),
        ("Imgs/{split}/{name}.JPG", "Msks/{split}/{name}.PNG"),
    ],
)
def test_masks_are_found_in_folders_of_many_names(image, mask, scenes, tmp_path):
    label_tools.write_images(scenes, tmp_path / "source", image)
    for sample in scenes.samples:
        place = mask.format(split=sample.split, name=sample.name)
        label_tools.write(tmp_path / "source" / place, label_tools.png(sample.label))
    label_tools.write(tmp_path / "source" / "classes.txt", "\n".join(scenes.with_void))
    assert import_from(tmp_path / "source", tmp_path / "data")["format"] == "index_masks"
    assert agreement(scenes, tmp_path / "data") == 1


def test_palette_masks_with_names_alone_count_the_names(scenes, tmp_path):
    mask_folders.write_color_masks(scenes, tmp_path / "source", style="palette")
    (tmp_path / "source" / "class_dict.csv").unlink()
    (tmp_path / "source" / "classes.txt").write_text("\n".join(scenes.with_void))
    assert import_from(tmp_path / "source", tmp_path / "data")["format"] == "index_masks"
    assert agreement(scenes, tmp_path / "data") == 1


def test_folders_of_labelme_come_back(scenes, tmp_path):
    """Each folder numbers its own labels."""
    for sample in scenes.samples:
        found = [value for value in np.unique(sample.label).tolist() if value][::-1]
        numbers = np.zeros(256, np.uint8)
        numbers[found] = np.arange(1, len(found) + 1)
        folder = tmp_path / "source" / sample.split / f"{sample.name}_json"
        label_tools.write(folder / "img.png", label_tools.png(sample.image))
        label_tools.write(folder / "label_viz.png", label_tools.png(sample.image))
        image = Image.fromarray(numbers[sample.label])
        image.putpalette(bytes(range(0, 255, 3)) * 9)
        image.save(folder / "label.png")
        label_tools.write(
            folder / "label_names.txt", "\n".join(["_background_", *(scenes.with_void[value] for value in found)])
        )
    summary = import_from(tmp_path / "source", tmp_path / "data", unlabeled="void")
    assert (summary["format"], summary["skipped"]) == ("labelme_folders", [])
    assert agreement(scenes, tmp_path / "data") == 1
    import_from(tmp_path / "source", tmp_path / "background")
    assert (tmp_path / "background" / "classes.txt").read_text().split()[0] == "background"
    label_tools.write_labelme(scenes, tmp_path / "source")
    assert import_from(tmp_path / "source", tmp_path / "again")["format"] == "labelme"


def test_folders_of_labelme_that_lack_a_file_are_counted(tmp_path):
    for name in ("a", "b"):
        label_tools.write(
            tmp_path / "source" / f"{name}_json" / "img.png", label_tools.png(np.ones((8, 8, 3), np.uint8))
        )
        label_tools.write(
            tmp_path / "source" / f"{name}_json" / "label.png", label_tools.png(np.ones((8, 8), np.uint8))
        )
    label_tools.write(tmp_path / "source" / "a_json" / "label_names.txt", "_background_\ncat\n")
    (note,) = import_from(tmp_path / "source", tmp_path / "data")["skipped"]
    assert note["reason"] == "folder without label_names.txt"
    assert (note["count"], note["first"][-6:]) == (1, "b_json")


def test_camvid_as_published_comes_back(scenes, tmp_path):
    label_tools.write_images(scenes, tmp_path / "source", "701_StillsRaw_full/{name}.png")
    for sample in scenes.samples:
        path = tmp_path / "source" / "LabeledApproved_full" / f"{sample.name}_L.png"
        label_tools.write(path, label_tools.png(label_tools.color_label(sample.label)))
    lines = [f"{' '.join(map(str, label_tools.color_of(i)))}\t\t{name}" for i, name in enumerate(scenes.with_void)]
    label_tools.write(tmp_path / "source" / "label_colors.txt", "\r\n".join(lines))
    summary = import_from(tmp_path / "source", tmp_path / "data")
    assert (summary["format"], summary["skipped"]) == ("color_masks", [])
    assert agreement(scenes, tmp_path / "data", has_splits=False) == 1


@pytest.mark.parametrize("unlabeled", [None, "void"])
def test_black_that_the_list_of_a_camvid_export_lacks_is_without_a_label(unlabeled, tmp_path):
    """CVAT leaves the background out of `label_colors.txt`."""
    for i in range(2):
        colors = np.zeros((8, 8, 3), np.uint8)
        colors[2:5, 2:6] = (128, 64, 0)
        label_tools.write(tmp_path / "source" / "defaultannot" / f"{i}.png", label_tools.png(colors))
        label_tools.write(
            tmp_path / "source" / "default" / f"{i}.png", label_tools.png(np.full_like(colors, 9 + 90 * i))
        )
    label_tools.write(tmp_path / "source" / "label_colors.txt", "128 64 0 cat\n")
    summary = import_from(tmp_path / "source", tmp_path / "data", unlabeled=unlabeled)
    assert [item["name"] for item in summary["classes"]] == (["cat"] if unlabeled else ["background", "cat"])
    found = label_maps(tmp_path / "data")["0"]
    assert (found[0, 0], found[3, 3]) == ((0, 1) if unlabeled else (1, 2))
    (remark,) = summary["remarks"]
    assert remark["remark"] == "color (0, 0, 0) that the list lacks, which was read as pixels without a label"
    assert remark["first"].endswith("label_colors.txt")


def test_the_layout_of_ade20k_takes_its_classes_from_its_own_list(scenes, tmp_path):
    label_tools.write_images(scenes, tmp_path / "source", "images/{split}/{name}.png")
    for sample in scenes.samples:
        path = tmp_path / "source" / "annotations" / sample.split / f"{sample.name}.png"
        label_tools.write(path, label_tools.png(sample.label))
    lines = [f"{i}\t0.1\t9\t9\t1\t{name}, {name}s" for i, name in enumerate(scenes.names, 1)]
    label_tools.write(
        tmp_path / "source" / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tStuff\tName\n" + "\n".join(lines)
    )
    label_tools.write(tmp_path / "source" / "sceneCategories.txt", "ADE_train_00000001 airport_terminal\n")
    summary = import_from(tmp_path / "source", tmp_path / "data")
    assert agreement(scenes, tmp_path / "data") == 1
    assert summary["void"]["from"] == ["the values 0, 255, 65535"]


@pytest.mark.parametrize("value", [255, 65535])
def test_more_than_255_classes_in_masks_leave_the_highest_value_void(value, tmp_path):
    for i in range(2):
        mask = np.full((8, 8), value, np.uint16)
        mask[2:5, 2:6] = 299
        label_tools.write(tmp_path / "source" / "masks" / f"{i}.png", label_tools.png(mask))
        label_tools.write(
            tmp_path / "source" / "images" / f"{i}.png", label_tools.png(np.full((8, 8, 3), 99 * i, np.uint8))
        )
    label_tools.write(tmp_path / "source" / "classes.txt", "\n".join(f"class {i}" for i in range(300)))
    import_from(tmp_path / "source", tmp_path / "data")
    found = label_maps(tmp_path / "data")["0"]
    assert (found[3, 3], found[0, 0]) == (300, 256 if value == 255 else 0)


def test_folders_of_equal_names_for_masks_and_photographs_are_no_classes(scenes, tmp_path):
    for city in ("bonn", "ulm"):
        for sample in scenes.samples[:2]:
            for kind, array in (("images", sample.image), ("masks", np.full_like(sample.label, 1 + (city == "ulm")))):
                label_tools.write(
                    tmp_path / "source" / kind / "train" / city / f"{sample.name}.png", label_tools.png(array)
                )
    label_tools.write(tmp_path / "source" / "classes.txt", "grass\nhouse\ntree\n")
    assert import_from(tmp_path / "source", tmp_path / "data")["format"] == "index_masks"
    found = label_maps(tmp_path / "data")
    assert {stem: int(label.min()) for stem, label in found.items()} == {
        f"{city}_{sample.name}": 2 + (city == "ulm") for city in ("bonn", "ulm") for sample in scenes.samples[:2]
    }


@pytest.mark.parametrize("folders", [("Images", "Labels"), ("IMAGES", "LABELS")])
def test_folders_of_yolo_may_be_in_capitals(folders, scenes, tmp_path):
    label_tools.write_yolo(scenes, tmp_path / "source")
    for old, new in zip(("images", "labels"), folders, strict=True):
        (tmp_path / "source" / old).rename(tmp_path / "source" / new)
    import_from(tmp_path / "source", tmp_path / "data")
    assert agreement(scenes, tmp_path / "data") == 1


def test_words_for_the_role_of_a_file_do_not_count():
    assert {loose_stem(name) for name in ("a/7_sat.jpg", "a/7_mask.png", "b/img_7.png", "7.jpg.png")} == {"7"}


def reversed_list(scenes, path, colors=None) -> None:
    """Write a list of the scenes' names and colors, whose order is not that of the numbers in masks."""
    colors = colors or [label_tools.color_of(i) for i in range(len(scenes.with_void))]
    lines = [f"{name},{','.join(map(str, color))}" for name, color in zip(scenes.with_void, colors, strict=True)]
    label_tools.write(path, "\n".join(["name,r,g,b", *lines[::-1]]) + "\n")


@pytest.mark.parametrize("beside", ["names", "nothing"])
def test_a_list_of_the_user_with_colors_goes_by_the_colors_of_a_palette(beside, scenes, tmp_path):
    mask_folders.write_color_masks(scenes, tmp_path / "source", style="palette")
    (tmp_path / "source" / "class_dict.csv").unlink()
    if beside == "names":
        (tmp_path / "source" / "classes.txt").write_text("\n".join(scenes.with_void))
    reversed_list(scenes, tmp_path / "list.csv")
    import_from(tmp_path / "source", tmp_path / "data", classes=tmp_path / "list.csv")
    assert agreement(scenes, tmp_path / "data") == 1
    assert (tmp_path / "data" / "classes.txt").read_text().split() == list(scenes.names)[::-1]


def test_a_list_of_the_user_with_colors_goes_by_the_colors_of_a_palette_of_voc(scenes, tmp_path):
    label_tools.write_voc(scenes, tmp_path / "source")
    for path in (tmp_path / "source" / "SegmentationClass").iterdir():
        image = Image.open(path)
        colors = [label_tools.color_of(value + 1) for value in range(255)] + [(224, 224, 192)]
        image.putpalette([channel for color in colors for channel in color])
        image.save(path)
    reversed_list(scenes, tmp_path / "list.csv")
    import_from(tmp_path / "source", tmp_path / "data", classes=tmp_path / "list.csv")
    assert agreement(scenes, tmp_path / "data") == 1


@pytest.mark.parametrize("place", ["beside", "--classes"])
def test_a_list_with_grays_goes_by_the_grays(place, scenes, tmp_path):
    mask_folders.write_index_masks(scenes, tmp_path / "source")
    for path in (tmp_path / "source" / "labels").rglob("*.png"):  # 255 is void whatever the list gives
        values = np.asarray(Image.open(path))
        path.write_bytes(label_tools.png(np.where(values == 0, 255, values).astype(np.uint8)))
    if place == "beside":
        (tmp_path / "source" / "classes.txt").unlink()
    path = tmp_path / "list.csv" if place == "--classes" else tmp_path / "source" / "class_dict.csv"
    reversed_list(scenes, path, [(i, i, i) for i in range(len(scenes.with_void))])
    import_from(tmp_path / "source", tmp_path / "data", classes=path if place == "--classes" else None)
    assert agreement(scenes, tmp_path / "data") == 1


def test_a_color_of_a_palette_that_the_list_lacks_is_an_error_that_names_both_ways_out(scenes, tmp_path):
    mask_folders.write_color_masks(scenes, tmp_path / "source", style="palette")
    reversed_list(scenes, tmp_path / "list.csv", [(i, 0, 0) for i in range(len(scenes.with_void))])
    with pytest.raises(UserError, match=r"the color .* is not in .*list.csv \(leave its colors out if its lines count"):
        import_from(tmp_path / "source", tmp_path / "data", classes=tmp_path / "list.csv")


@pytest.mark.parametrize("style", ["palette", "three channels"])
@pytest.mark.parametrize("place", ["beside", "--classes"])
def test_names_alone_count_the_numbers(style, place, scenes, tmp_path):
    mask_folders.write_color_masks(scenes, tmp_path / "source", style="palette")
    (tmp_path / "source" / "class_dict.csv").unlink()
    if style == "three channels":
        for path in (tmp_path / "source").rglob("*_mask.png"):
            path.write_bytes(label_tools.png(np.dstack(3 * [np.asarray(Image.open(path))])))
    path = tmp_path / "names.txt" if place == "--classes" else tmp_path / "source" / "classes.txt"
    path.write_text("\n".join(scenes.with_void))
    summary = import_from(tmp_path / "source", tmp_path / "data", classes=path if place == "--classes" else None)
    assert agreement(scenes, tmp_path / "data") == 1
    assert [remark["count"] for remark in summary["remarks"]] == ([] if style == "palette" else [3])


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_regions_painted_from_large_to_small_give_the_map_back(label):
    """Holes need no ring of their own: what lies in a hole is smaller than what lies around it."""
    rings = nested_rings(label)
    objects = [Object(value + 1, polygon_filler([ring]), "") for value, ring in rings[::-1]]
    found = paint_objects([*objects[::-1]], BY_AREA, *label.shape)
    np.testing.assert_array_equal(found, label + 1)


def test_an_exported_zip_is_read_like_the_folder(scenes, tmp_path):
    import shutil

    label_tools.write_coco(scenes, tmp_path / "source")
    shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path / "source")
    summary = import_from(tmp_path / "export.zip", tmp_path / "data", unlabeled="void")
    assert agreement(scenes, tmp_path / "data") == 1.0
    assert "export.zip" in summary["source"]
    assert not list((tmp_path / "data").glob(".*"))
