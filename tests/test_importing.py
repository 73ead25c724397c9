"""What all imports share: splits, near duplicates, classes, names, the written folder, and the command."""

import functools
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import label_tools, mask_folders
from support.command_line import call, error_of
from support.import_damages import TRAIN, add_polygon, first_annotation, json_file
from support.imports import agreement, import_from, label_maps, toy_scenes
from support.label_tools import Sample, png

from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.checks import check_once
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BACKGROUND, VOID, Annotations, Notes, Options
from pyrseg_jax.importing.class_list import ClassList, read_class_list
from pyrseg_jax.importing.formats import FORMATS
from pyrseg_jax.importing.formats.coco import find_identity
from pyrseg_jax.importing.legend import make_legend
from pyrseg_jax.importing.names import stems_of
from pyrseg_jax.importing.near_duplicates import find_near_pairs, thumbnail
from pyrseg_jax.importing.splits import TEST, TRAINING, VALIDATION, draw_splits, split_of_path
from pyrseg_jax.importing.summary import make_summary, summary_text
from pyrseg_jax.scenes import paint_scene

names = st.lists(st.text("ab/_.1", min_size=1, max_size=6), min_size=2, max_size=20, unique=True)


@given(names, st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_draw_divides_all_pictures_and_depends_on_the_seed_alone(found, share, seed):
    splits, _ = draw_splits(found, [None] * len(found), share, None, seed)
    assert {TRAINING, VALIDATION} == set(splits)
    assert abs(splits.count(VALIDATION) - share * len(found)) <= 1
    again, _ = draw_splits(found[::-1], [None] * len(found), share, None, seed)
    assert again[::-1] == splits


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99)), min_size=2, max_size=30, unique=True),
    st.floats(0.05, 0.95),
)
def test_a_group_is_never_divided(frames, share):
    found = [f"videos/clip{clip}_frame{frame}.jpg" for clip, frame in frames]
    given_splits = [TEST if clip == 5 else None for clip, _ in frames]
    clips = {clip for clip, _ in frames if clip != 5}
    if len(clips) < 2:
        return
    splits, _ = draw_splits(found, given_splits, share, r"(clip\d)_", 0)
    for clip in clips:
        assert len({split for (other, _), split in zip(frames, splits, strict=True) if other == clip}) == 1
    assert {TRAINING, VALIDATION} <= set(splits)
    assert [split == TEST for split in splits] == [split == TEST for split in given_splits]


def test_the_splits_of_the_source_stay_unless_a_share_is_given():
    given_splits = [TRAINING, VALIDATION, TEST, None]
    assert draw_splits(list("abcd"), given_splits, None, None, 0)[0] == [TRAINING, VALIDATION, TEST, TRAINING]
    drawn, line = draw_splits(list("abcd"), given_splits, 0.4, None, 0)
    assert drawn[2] == TEST and drawn.count(VALIDATION) == 1
    assert line.startswith("drawn with seed 0, by pictures: 1 of 3")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("annotations/instances_train2017.json", TRAINING),
        ("valid/_annotations.coco.json", VALIDATION),
        ("data/test-00000-of-00001.parquet", TEST),
        ("training/images", TRAINING),
        ("trainspotting/contest.json", None),
    ],
)
def test_a_split_is_read_from_a_path(path, split):
    assert split_of_path(path) == split


@given(
    st.lists(
        st.sampled_from(
            ["a/x.jpg", "b/x.jpg", "b/x.png", "x.jpg", "a_x.jpg", "A/X.jpg", "c/é.png", "c/é.png", ".x.jpg"]
        )
    )
)
def test_each_picture_gets_a_stem_of_its_own(paths):
    stems = stems_of(paths)
    assert len({stem.casefold() for stem in stems}) == len(paths)
    assert not any(stem.startswith(".") or "/" in stem for stem in stems)


def test_copies_and_neighbors_are_found_and_others_are_not():
    pictures = [paint_scene("training", i)[0] for i in range(5)]
    changed = []
    for i, picture in enumerate(pictures[:3]):
        image = Image.fromarray(picture).resize((180, 200)) if i == 0 else Image.fromarray(np.roll(picture, i, 1))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=60)
        changed.append(thumbnail(buffer.getvalue(), "x.jpg"))
    training = np.stack([thumbnail(png(picture), "x.png") for picture in pictures])
    others = [thumbnail(png(paint_scene("validation", i)[0]), "x.png") for i in range(5)]
    pairs = find_near_pairs(training, np.stack([*changed, *others]))
    assert {(pair.first, pair.second) for pair in pairs} == {(0, 0), (1, 1), (2, 2)}


def test_near_duplicates_between_the_splits_are_named(tmp_path):
    scenes = toy_scenes()
    pictures = [Image.fromarray(paint_scene("training", i)[0]).resize((28, 24)) for i in range(3)]
    images = [np.asarray(picture) for picture in (*pictures, pictures[1])]
    samples = tuple(sample._replace(image=image) for sample, image in zip(scenes.samples, images, strict=True))
    label_tools.write_coco(scenes._replace(samples=samples), tmp_path / "source")
    summary = import_from(tmp_path / "source", tmp_path / "data")
    (pair,) = summary["near_duplicates"]
    assert (pair["training"], pair["other"]) == ("images/train2017/picture_1.png", "images/val2017/picture_3.png")


@pytest.mark.parametrize("split", [TRAINING, VALIDATION, TEST])
def test_a_split_without_labels_is_warned_of(split):
    """As with Cityscapes, whose test label maps are void."""
    legend = make_legend(annotations("car", "tree"), Options())
    pixels = {
        name: np.array([9, 5, 6, 0]) * [1, name != split, name != split, 1] for name in (TRAINING, VALIDATION, TEST)
    }
    counts = dict.fromkeys(pixels, 1525)
    summary = make_summary(Path("source"), "cityscapes", "", legend, pixels, counts, {}, "as listed", Notes(), [])
    assert summary["void"]["splits"] == [split]
    (line,) = [line for line in summary_text(summary).splitlines() if line.startswith("warning: ")]
    assert line.startswith(f"warning: every pixel of the split {split} (1,525 pictures) is void, so ")
    assert ("check the annotations" if split == TRAINING else "evaluate on another split") in line
    whole = {name: np.array([9, 5, 6, 0]) for name in pixels}
    summary = make_summary(Path("source"), "cityscapes", "", legend, whole, counts, {}, "as listed", Notes(), [])
    assert summary["void"]["splits"] == [] and "warning" not in summary_text(summary)


def annotations(*classes: str, unlabeled: str = VOID) -> Annotations:
    return Annotations(classes, (), Notes(), unlabeled)


def test_void_names_background_and_the_users_list_decide_the_classes(tmp_path):
    legend = make_legend(annotations("car", "Void", "tree", "don't care"), Options())
    assert (legend.names, legend.table.tolist()) == (("car", "tree"), [0, 1, 0, 2, 0, 0])
    assert legend.void_from == ("pixels without annotation", "the class 'Void'", 'the class "don\'t care"')
    legend = make_legend(annotations("car", "tree", unlabeled=BACKGROUND), Options())
    assert (legend.names, legend.table.tolist()) == (("background", "car", "tree"), [1, 2, 3, 0])
    legend = make_legend(annotations("car", "_background_"), Options(unlabeled=BACKGROUND))
    assert (legend.names, legend.table.tolist()) == (("car", "_background_"), [2, 1, 2, 0])
    listed = ClassList(tmp_path / "list.txt", ("tree", "car"), None)
    legend = make_legend(annotations("car", "pole", "tree"), Options(listed))
    assert (legend.names, legend.table.tolist(), legend.left_out) == (("tree", "car"), [0, 2, 0, 1, 0], {2: "pole"})
    with pytest.raises(UserError, match="names the class 'tre', which the source does not have: did you mean 'tree'"):
        make_legend(annotations("car", "tree"), Options(listed._replace(names=("tre",))))
    with pytest.raises(UserError, match="no class is left"):
        make_legend(annotations("void"), Options())


@pytest.mark.parametrize(
    "text",
    [
        "sky,1,2,3\nroad 1,4,5,6\n",
        "1 2 3 sky\n4 5 6 road 1\n",
        "name,r,g,b\nsky,1,2,3\nroad 1,4,5,6\n",
        "# a comment\nsky:1,2,3::\nroad 1:4,5,6:part:action\n",
        "sky #010203\r\nroad 1 #040506\r\n",
        "id;class;hex\n7;sky;#010203\n8;road 1;040506\n",
        "sky\t1\t2\t3\nroad 1\t4\t5\t6",
    ],
)
def test_lists_of_classes_are_read_in_many_forms(text, tmp_path):
    label_tools.write(tmp_path / "list.csv", text)
    found = read_class_list(tmp_path / "list.csv")
    assert (found.names, found.colors) == (("sky", "road 1"), ((1, 2, 3), (4, 5, 6)))


def test_what_is_written_is_a_data_set_that_the_package_reads(tmp_path):
    scenes = toy_scenes()
    label_tools.write_coco(scenes, tmp_path / "source")
    summary = import_from(tmp_path / "source", tmp_path / "data", unlabeled="void")
    assert json.loads((tmp_path / "data" / "import.json").read_text()) == summary
    dataset = open_dataset("folder", str(tmp_path / "data"), None)
    for split, samples in ((TRAINING, scenes.samples[:3]), (VALIDATION, scenes.samples[3:])):
        source = dataset.open_split(split)
        check_once(source, dataset.label_space, split)
        assert len(source) == len(samples)
        for i, sample in enumerate(samples):
            pair = decode_pair(source[i], dataset.label_space)
            np.testing.assert_array_equal(pair.image, sample.image)
            np.testing.assert_array_equal(pair.label, (sample.label.astype(int) - 1) % 256)
    counts = np.bincount(np.concatenate([sample.label.reshape(-1) for sample in scenes.samples]), minlength=4)
    assert summary["void"]["share"] == pytest.approx(counts[0] / counts.sum())
    assert [sum(item["pixels"].values()) for item in summary["classes"]] == counts[1:].tolist()


def test_photographs_are_linked_or_copied_byte_for_byte(tmp_path):
    label_tools.write_coco(toy_scenes(), tmp_path / "source")
    original = tmp_path / "source" / "images" / "train2017" / "picture_0.png"
    assert import_from(tmp_path / "source", tmp_path / "links")["written"] == {"linked": 4}
    assert os.path.samefile(original, tmp_path / "links" / "images" / "training" / "picture_0.png")
    assert import_from(tmp_path / "source", tmp_path / "copies", is_copying=True)["written"] == {"copied": 4}
    copy = tmp_path / "copies" / "images" / "training" / "picture_0.png"
    assert not os.path.samefile(original, copy) and copy.read_bytes() == original.read_bytes()


def test_the_same_import_writes_the_same_bytes(tmp_path):
    mask_folders.write_class_folders(toy_scenes(8), tmp_path / "source")
    for name in ("a", "b"):
        import_from(tmp_path / "source", tmp_path / name)
    files = [sorted((p.relative_to(tmp_path / n), p.read_bytes()) for p in (tmp_path / n).rglob("*.*")) for n in "ab"]
    assert files[0] == files[1]


def test_the_output_is_safe(tmp_path):
    label_tools.write_coco(toy_scenes(), tmp_path / "source")
    for output, message in (
        (tmp_path / "source", "holds the source"),
        (tmp_path, "holds the source"),
        (tmp_path / "source" / "data", "lies in the source"),
    ):
        with pytest.raises(UserError, match=message):
            import_from(tmp_path / "source", output, is_replacing=True)
    label_tools.write(tmp_path / "mine" / "thesis.txt", "years of work")
    with pytest.raises(UserError, match="exists and is not empty: name another folder, or give --overwrite"):
        import_from(tmp_path / "source", tmp_path / "mine")
    with pytest.raises(
        UserError, match=r"was not written by an import \(it has no import.json\), so it is not replaced"
    ):
        import_from(tmp_path / "source", tmp_path / "mine", is_replacing=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    import_from(tmp_path / "source", tmp_path / "data")
    with pytest.raises(UserError, match="--overwrite"):
        import_from(tmp_path / "source", tmp_path / "data")
    import_from(tmp_path / "source", tmp_path / "data", is_replacing=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "mine", "source"]


KILLED = """
import sys
from pathlib import Path
from pathlib import Path
sys.path[:0] = sys.argv[3:]
import os
from pyrseg_jax.importing import importer, writing
def write_and_die(*arguments, **named):
    os._exit(9)
importer.write_pair = write_and_die
importer.import_dataset(sys.argv[1], sys.argv[2])
"""


def test_a_single_file_never_stands_for_what_lies_beside_it(tmp_path):
    """The folder of the file, or the one above it, may hold other data sets."""
    mask_folders.write_index_masks(toy_scenes(), tmp_path / "other")
    for name, message in {
        "export.tar.gz": r"export.tar.gz is packed as .gz: unpack it, and name its folder",
        "photo.png": r"photo.png is of no known format",
        "broken.json": r"broken.json is of no known format.*is not JSON",
    }.items():
        (tmp_path / name).write_bytes(b"{")
        with pytest.raises(UserError, match=message):
            import_from(tmp_path / name, tmp_path / "data")


def test_a_table_takes_its_names_from_its_own_folders(tmp_path):
    pytest.importorskip("pyarrow")
    for name in ("a", "b"):
        mask_folders.write_hugging_face(toy_scenes(), tmp_path / name)
    (tmp_path / "a" / "id2label.json").write_text('{"0": "x", "1": "y", "2": "z", "3": "w"}')
    (file,) = (tmp_path / "b").rglob("*train*.parquet")
    file.rename(tmp_path / "b" / "train.parquet")
    summary = import_from(tmp_path / "b" / "train.parquet", tmp_path / "data")
    assert [item["name"] for item in summary["classes"]] == ["grass", "house", "tree"]


def test_a_killed_import_leaves_no_data_set_and_the_next_one_removes_what_it_left(tmp_path):
    label_tools.write_coco(toy_scenes(), tmp_path / "source")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "source"), str(tmp_path / "data"), *sys.path]
    assert subprocess.run(command, capture_output=True).returncode == 9
    left = [path for path in tmp_path.iterdir() if path.name.endswith(".importing")]
    assert len(left) == 1 and not (tmp_path / "data").exists()
    import_from(tmp_path / "source", tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "source"]


def test_more_than_255_classes_are_written_as_16_bits(tmp_path):
    label = np.arange(600, dtype=np.uint16).reshape(20, 30) % 300
    for split in ("train", "val"):
        label_tools.write(tmp_path / "source" / "images" / split / f"{split}.png", png(np.zeros((20, 30, 3), np.uint8)))
        label_tools.write(tmp_path / "source" / "masks" / split / f"{split}.png", png(label))
    label_tools.write(tmp_path / "source" / "classes.txt", "".join(f"class {i}\n" for i in range(300) if True))
    import_from(tmp_path / "source", tmp_path / "data")
    found = label_maps(tmp_path / "data")["train"]
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, label + 1)


def test_spaces_around_a_label_of_labelme_make_no_other_class(tmp_path):
    label_tools.write_labelme(toy_scenes(), tmp_path / "source")
    path = tmp_path / "source" / "train" / "picture_0.json"
    path.write_text(path.read_text().replace('"grass"', '"grass "'))
    (tmp_path / "source" / "labels.txt").unlink(missing_ok=True)
    summary = import_from(tmp_path / "source", tmp_path / "data")
    assert sorted(item["name"] for item in summary["classes"] if item["name"].startswith("grass")) == ["grass"]


def test_a_file_of_all_pictures_leaves_the_splits_of_the_others(tmp_path):
    label_tools.write_coco(toy_scenes(), tmp_path / "source")
    folder = tmp_path / "source" / "annotations"
    train, val = (json.loads((folder / f"instances_{split}2017.json").read_text()) for split in ("train", "val"))
    for item in (*val["images"], *val["annotations"]):
        key = "image_id" if "image_id" in item else "id"
        item[key] += 100
    merged = train | {key: train[key] + val[key] for key in ("images", "annotations")}
    (folder / "all.json").write_text(json.dumps(merged))
    assert import_from(tmp_path / "source", tmp_path / "data")["splits"] == "as the source lists them"
    assert agreement(toy_scenes(), tmp_path / "data") == 1


def test_labels_of_cvat_that_mark_no_regions_are_no_classes(tmp_path):
    label_tools.write_cvat(toy_scenes(), tmp_path / "source")
    (path,) = (tmp_path / "source").glob("*.xml")
    more = "<label><name>pose</name><type>skeleton</type></label><label><name>nose</name><type>points</type><parent>pose</parent>"
    text = path.read_text()
    assert "<labels>" in text
    path.write_text(text.replace("<labels>", f"<labels>{more}</label>", 1))
    summary = import_from(tmp_path / "source", tmp_path / "data")
    assert not {"pose", "nose"} & {item["name"] for item in summary["classes"]}


def test_folders_behind_links_belong_to_the_source_and_loops_end(tmp_path):
    mask_folders.write_index_masks(toy_scenes(), tmp_path / "elsewhere")
    (tmp_path / "source").mkdir()
    for name in ("images", "labels", "classes.txt"):
        (tmp_path / "source" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "images" / "loop").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source" / "again").symlink_to(tmp_path / "source")
    import_from(tmp_path / "source", tmp_path / "data")
    assert agreement(toy_scenes(), tmp_path / "data") == 1


def test_an_image_is_found_by_a_name_with_escapes(tmp_path):
    label_tools.write_coco(toy_scenes(), tmp_path / "source")
    path = tmp_path / "source" / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace("picture_0.png", "picture%5F0.png"))
    assert import_from(tmp_path / "source", tmp_path / "data")["images"] == {"training": 3, "validation": 1}


@pytest.mark.parametrize(
    "write",
    [
        label_tools.write_coco,
        label_tools.write_panoptic,
        label_tools.write_labelme,
        functools.partial(label_tools.write_label_studio, style="polygon"),
    ],
)
def test_json_that_is_not_of_the_annotations_is_passed_over(write, tmp_path):
    write(toy_scenes(), tmp_path / "source")
    for name, content in {
        "package.json": '{"name": "site"}',
        "settings.json": '{"a": 1, // comment\n}',
        "empty.json": "",
        "null.json": "null",
        ".vscode/x.json": "{",
    }.items():
        label_tools.write(tmp_path / "source" / name, content)
    summary = import_from(tmp_path / "source", tmp_path / "data")
    assert sum(summary["images"].values()) == 4
    notes = {note["reason"]: (note["count"], Path(note["first"].split(" is ")[0]).name) for note in summary["skipped"]}
    assert notes == {
        "JSON file of another kind": (2, "null.json"),
        "JSON file that cannot be read, and does not look like annotations": (2, "empty.json"),
    }


@pytest.mark.parametrize("write", [label_tools.write_coco, label_tools.write_panoptic])
@pytest.mark.parametrize("key", ["id", "image_id"])
def test_numbers_of_coco_may_be_texts_in_one_place(write, key, tmp_path):
    write(toy_scenes(), tmp_path / "source")
    for path in (tmp_path / "source" / "annotations").glob("*.json"):
        document = json.loads(path.read_text())
        keys = ("image_id", "category_id") if key == "image_id" and write is label_tools.write_coco else (key,)
        for item in document["images" if key == "id" else "annotations"]:
            item.update({name: str(item[name]) for name in keys})
        path.write_text(json.dumps(document))
    import_from(tmp_path / "source", tmp_path / "data", unlabeled="void")
    assert agreement(toy_scenes(), tmp_path / "data") == 1


def test_a_text_and_a_number_are_two_images_if_both_are_there():
    assert [find_identity(wanted, {1: "a", "1": "b", 2: "c", "3": "d"}) for wanted in (1, "1", "2", 3, "02", "x")] == [
        *(1, "1", 2, "3", 2, None)
    ]


POLYGON_WRITERS = {
    "coco": label_tools.write_coco,
    "yolo": label_tools.write_yolo,
    "labelme": label_tools.write_labelme,
    "label_studio": functools.partial(label_tools.write_label_studio, style="polygon"),
    "cvat_xml": label_tools.write_cvat,
}


@pytest.mark.parametrize(
    ("name", "points", "reason"),
    [
        *((name, [[4, 4]], "polygon of fewer than 3 points") for name in POLYGON_WRITERS),
        *(
            (name, points, "polygon whose points all lie on one line")
            for name in POLYGON_WRITERS
            if name != "labelme"  # which paints the border of a polygon, too
            for points in ([[4, 4], [9, 9], [14, 14]], [[4, 4], [4, 4], [4, 4]])
        ),
    ],
)
def test_polygons_without_area_are_left_out_and_counted(name, points, reason, tmp_path):
    POLYGON_WRITERS[name](toy_scenes(), tmp_path / "whole")
    import_from(tmp_path / "whole", tmp_path / "expected")
    POLYGON_WRITERS[name](toy_scenes(), tmp_path / "source")
    add_polygon(tmp_path / "source", points)
    summary = import_from(tmp_path / "source", tmp_path / "data")
    counts = {note["reason"]: note["count"] for note in summary["skipped"]}
    assert counts == {reason: 1} | ({"object without a shape": 1} if name == "coco" else {})
    assert "picture_0" in summary["skipped"][0]["first"] or name in ("coco", "label_studio")
    for stem, expected in label_maps(tmp_path / "expected").items():
        np.testing.assert_array_equal(label_maps(tmp_path / "data")[stem], expected)


def test_an_object_of_coco_keeps_its_other_polygons_or_becomes_its_box(tmp_path):
    label_tools.write_coco(toy_scenes(), tmp_path / "source")
    square = [2, 2, 8, 2, 8, 8, 2, 8]
    first_annotation(segmentation=[[], square, [1, 1, 2, 2]], iscrowd=0)(tmp_path / "source")
    add_polygon(tmp_path / "source", [])
    box = {"segmentation": [[]], "bbox": [20, 2, 4, 4]}
    json_file(TRAIN, lambda d: d["annotations"][-1].update(box))(tmp_path / "source")
    kept = json_file(TRAIN, lambda d: d.update(annotations=[d["annotations"][0], d["annotations"][-1]]))
    kept(tmp_path / "source")
    summary = import_from(tmp_path / "source", tmp_path / "data")
    found = label_maps(tmp_path / "data")["picture_0"]
    assert len(set(found[2:8, 2:8].flat)) == 1 and found[2, 2] != found[0, 0]
    assert (found[2:6, 20:24] == 0).all()
    assert {note["reason"]: note["count"] for note in summary["skipped"]} == {
        "polygon of fewer than 3 points": 3,
        "object of which only the box is known (its box became void)": 1,
    }


@pytest.mark.parametrize("kind", ["rectangle", "rotation"])
def test_rectangles_by_four_corners_are_filled(kind, tmp_path):
    """X-AnyLabeling writes them in LabelMe's files."""
    scenes = toy_scenes(2)
    label_tools.write_labelme(scenes, tmp_path / "source")
    path = tmp_path / "source" / "train" / "picture_0.json"
    document = json.loads(path.read_text())
    corners = [[2, 3], [9, 3], [9, 7], [2, 7]]
    document["shapes"] = [document["shapes"][0] | {"shape_type": kind, "label": "house", "points": corners}]
    path.write_text(json.dumps(document))
    import_from(tmp_path / "source", tmp_path / "data")
    names = (tmp_path / "data" / "classes.txt").read_text().split()
    found = label_maps(tmp_path / "data")["picture_0"] == names.index("house") + 1
    assert found[3:8, 2:10].all() and found.sum() == 5 * 8


@pytest.mark.parametrize("write", [label_tools.write_cvat, label_tools.write_label_studio, label_tools.write_coco])
def test_exports_in_folders_of_their_own_may_name_equal_photographs(write, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        write(toy_scenes(seed=seed), tmp_path / "source" / name)
        for path in list((tmp_path / "source" / name / "images").rglob("*.png")):  # all in one folder
            path.rename(tmp_path / "source" / name / "images" / path.name)
    import_from(tmp_path / "source", tmp_path / "data")
    for name, seed in (("a", 0), ("b", 1)):
        stem = functools.partial(lambda name, sample: f"{name}_images_{sample.name}", name)
        assert agreement(toy_scenes(seed=seed), tmp_path / "data", stem, has_splits=False) == 1


def test_a_zip_with_backslashes_is_unpacked_into_folders(tmp_path):
    mask_folders.write_index_masks(toy_scenes(), tmp_path / "source")
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as archive:
        for path in (tmp_path / "source").rglob("*.*"):
            archive.write(path, str(path.relative_to(tmp_path / "source")).replace("/", "\\"))
    import_from(tmp_path / "source.zip", tmp_path / "data")
    assert agreement(toy_scenes(), tmp_path / "data") == 1


@pytest.mark.parametrize("name", ["notes.md", "class_dict.csv"])
def test_messages_about_a_zip_name_the_zip(name, tmp_path):
    colors = np.eye(8, dtype=np.uint8)[..., None] * np.array([9, 99, 3], np.uint8)
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as archive:
        archive.writestr(name, "name,r,g,b\nx,1\n")
        if name == "class_dict.csv":
            archive.writestr("masks/a.png", png(colors))
            archive.writestr("images/a.png", png(colors))
    place = "source.zip is of no known format" if name == "notes.md" else "source.zip/class_dict.csv: line 2"
    with pytest.raises(UserError, match=place) as caught:
        import_from(tmp_path / "source.zip", tmp_path / "data")
    assert ".unpacked" not in str(caught.value)


def test_smaller_objects_stay_visible_or_later_ones_do(tmp_path):
    """COCO's default is by area; `overlap` chooses."""
    label = np.full((24, 28), 1, np.uint8)
    scenes = toy_scenes()._replace(samples=tuple(s._replace(label=label) for s in toy_scenes().samples))
    label_tools.write_coco(scenes, tmp_path / "source")
    for split in ("train", "val"):
        path = tmp_path / "source" / "annotations" / f"instances_{split}2017.json"
        document = json.loads(path.read_text())
        small = [{**a, "category_id": 20, "segmentation": [[2, 2, 8, 2, 8, 8, 2, 8]]} for a in document["annotations"]]
        crowd = [{**a, "category_id": 30, "iscrowd": 1} for a in document["annotations"]]
        document["annotations"] = small + document["annotations"] + crowd
        path.write_text(json.dumps(document))
    import_from(tmp_path / "source", tmp_path / "area")
    found = label_maps(tmp_path / "area")["picture_0"]
    value = {name: i for i, name in enumerate((tmp_path / "area" / "classes.txt").read_text().split(), 1)}
    assert (found[5, 5], found[20, 20]) == (value["house"], value["grass"])
    import_from(tmp_path / "source", tmp_path / "file", overlap="file")
    assert set(np.unique(label_maps(tmp_path / "file")["picture_0"])) == {value["grass"]}


def test_a_box_without_an_outline_becomes_void_and_is_counted(tmp_path):
    label_tools.write_yolo(toy_scenes(), tmp_path / "source")
    label_tools.write(tmp_path / "source" / "labels" / "train" / "picture_0.txt", "1 0.5 0.5 0.5 0.5\n")
    label_tools.write(tmp_path / "source" / "labels" / "train" / "picture_1.txt", "")
    (tmp_path / "source" / "labels" / "train" / "picture_2.txt").unlink()
    summary = import_from(tmp_path / "source", tmp_path / "data")
    found = label_maps(tmp_path / "data")
    assert (found["picture_0"][12, 14], found["picture_0"][0, 0]) == (0, 1)
    assert set(np.unique(found["picture_1"])) == {1} and "picture_2" not in found
    assert [(note["reason"], note["count"]) for note in summary["skipped"]] == [
        ("object of which only the box is known (its box became void)", 1),
        ("image without a label file", 1),
    ]


def test_the_command_says_what_it_recognized_and_what_comes_next(tmp_path):
    scenes = toy_scenes()
    label_tools.write_labelme(scenes, tmp_path / "source")
    done = call("import", f"--input={tmp_path / 'source'}", f"--output={tmp_path / 'my data'}", "--unlabeled=void")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "format: labelme, LabelMe JSON, one file for each picture (train/picture_0.json has shapes"
    )
    for line in ("images: 3 training, 1 validation (4 linked)", "skipped: nothing", "near duplicates", "0 void"):
        assert line in done.stdout
    assert done.stdout.rstrip().endswith(f"--config.data.root='{tmp_path / 'my data'}' --workdir=runs/mine")
    assert agreement(scenes, tmp_path / "my data") > 0.99
    assert "--config is not a flag of import: it reads annotations, not runs" in error_of(
        call("import", "--config=scenes", "--input=a", "--output=b")
    )
    assert "--split=2: expected a number between 0 and 1" in error_of(call("import", "--split=2"))
    assert "import needs --input=" in error_of(call("import"))
    assert "--input=nowhere: there is no such file or folder" in error_of(
        call("import", "--input=nowhere", "--output=b")
    )


def test_every_format_is_documented():
    text = (call.__globals__["ROOT"] / "docs" / "guide" / "importing.md").read_text()
    for form in FORMATS.values():
        assert f"`{form.name}`" in text, form.name


def test_a_photograph_that_was_stored_turned_keeps_its_labels(tmp_path):
    """Annotations of the upright picture, or of the stored pixels: both fit the file, which is not changed."""
    scenes = toy_scenes()
    turned = Image.fromarray(scenes.samples[0].image)
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned by 90 degrees
    for name, label in (("stored", scenes.samples[0].label), ("upright", scenes.samples[0].label.T)):
        samples = (Sample("a", "train", scenes.samples[0].image, label), scenes.samples[3])
        label_tools.write_coco(scenes._replace(samples=samples), tmp_path / name)
        turned.save(tmp_path / name / "images" / "train2017" / "a.png", exif=exif)
        import_from(tmp_path / name, tmp_path / f"{name} data", unlabeled="void")
        np.testing.assert_array_equal(label_maps(tmp_path / f"{name} data")["a"], label)
