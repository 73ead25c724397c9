"""Broken sources of the formats that describe objects, and of all formats."""

import functools

from support import label_tools
from support.import_damages import (
    TRAIN,
    Broken,
    content,
    cut,
    first_annotation,
    first_result,
    first_shape,
    gone,
    json_file,
    text_file,
)

coco = label_tools.write_coco
coco_runs = functools.partial(label_tools.write_coco, style="runs")
coco_text = functools.partial(label_tools.write_coco, style="compressed")
cvat_runs = functools.partial(label_tools.write_cvat, style="mask")
studio = label_tools.write_label_studio
studio_polygons = functools.partial(label_tools.write_label_studio, style="polygon")

BROKEN_OBJECTS = {
    "a JSON file that is cut off": Broken(
        coco, cut(TRAIN), r"instances_train2017.json is not JSON \(.*export it again"
    ),
    "an empty JSON file": Broken(coco, content(TRAIN, b""), r"instances_train2017.json is empty"),
    "a JSON file in another encoding": Broken(coco, content(TRAIN, '{"é": 1}'.encode("latin-1")), "is not UTF-8 text"),
    "an unknown category": Broken(
        coco, first_annotation(category_id=999), r"annotations\[0\] has category_id=999, which"
    ),
    "an unknown image": Broken(
        coco, first_annotation(image_id=999), r"annotations\[0\] has image_id=999, which no image has"
    ),
    "an annotation without an image": Broken(
        coco,
        json_file(TRAIN, lambda d: d["annotations"][0].pop("image_id") and None),
        r"annotations\[0\] has no 'image_id'",
    ),
    "a missing photograph": Broken(
        coco, gone("images/train2017/picture_0.png"), r"images\[0\] names the image 'picture_0.png', which is not below"
    ),
    "two images of one number": Broken(
        coco, json_file(TRAIN, lambda d: d["images"][1].update(id=1)), r"images\[1\] repeats the id 1"
    ),
    "a photograph with another suffix": Broken(
        coco,
        lambda root: (root / "images/train2017/picture_0.png").rename(root / "images/train2017/Picture_0.JPG"),
        r"images\[0\] names the image 'picture_0.png', which is not below .*: images/train2017/Picture_0.JPG is there; rename",
    ),
    "a picture in two splits": Broken(
        coco,
        lambda root: (root / "annotations/instances_val.json").write_text((root / TRAIN).read_text()),
        r"images\[0\] names .*picture_0.png for validation, but .*images\[0\] names it for training: a picture belongs",
    ),
    "a size in words": Broken(
        coco,
        json_file(TRAIN, lambda d: d["images"][0].update(width="28")),
        r"images\[0\] has width='28': expected a whole",
    ),
    "an absurd size": Broken(
        coco,
        json_file(TRAIN, lambda d: d["images"][0].update(width=10**9)),
        r"has width=1000000000: expected a number of",
    ),
    "annotations for another size": Broken(
        coco,
        json_file(TRAIN, lambda d: d["images"][0].update(width=20)),
        r"is 28 × 24 pixels, but its annotations are for 20 × 24",
    ),
    "a category without a name": Broken(
        coco, json_file(TRAIN, lambda d: d["categories"][1].update(name=" ")), r"categories\[1\] has an empty 'name'"
    ),
    "a polygon of odd length": Broken(
        coco, first_annotation(segmentation=[[1, 2, 3, 4, 5]]), r"expected pairs of numbers"
    ),
    "a short polygon that is not finite": Broken(
        coco, first_annotation(segmentation=[[1, float("nan")]]), r"a coordinate that is not a finite number"
    ),
    "a polygon with a text": Broken(
        coco, first_annotation(segmentation=[[1, 2, 3, 4, 5, "6"]]), r"expected pairs of numbers x, y"
    ),
    "a polygon that is not finite": Broken(
        coco,
        first_annotation(segmentation=[[1, 2, 3, 4, 5, float("nan")]]),
        r"a coordinate that is not a finite number",
    ),
    "a polygon far outside": Broken(
        coco,
        first_annotation(segmentation=[[1, 2, 3, 4, 5, 1e6]]),
        r"annotations\[0\]: the coordinate 1e\+06 lies far outside",
    ),
    "a polygon beyond the range of squares": Broken(
        coco,
        first_annotation(segmentation=[[1, 2, 3, 4, 5, 1e300]]),
        r"annotations\[0\]: the coordinate 1e\+300 lies far outside",
    ),
    "runs of another size": Broken(
        coco_runs,
        first_annotation(segmentation={"size": [5, 5], "counts": [25]}),
        r"has runs for the size \[5, 5\], but its",
    ),
    "runs that do not fill the picture": Broken(
        coco_runs,
        first_annotation(segmentation={"size": [24, 28], "counts": [3, 4]}),
        r"runs has 7 pixels, but the mask has 24",
    ),
    "runs in a damaged text": Broken(
        coco_text, first_annotation(segmentation={"size": [24, 28], "counts": "ab\t"}), r"which no RLE contains"
    ),
    "runs that are no numbers": Broken(
        coco_runs,
        first_annotation(segmentation={"size": [24, 28], "counts": [None]}),
        r"is not a list of whole numbers",
    ),
    "an unknown kind of shape": Broken(
        label_tools.write_labelme,
        first_shape(shape_type="cube"),
        r"shapes\[0\] has shape_type='cube': expected one of polygon",
    ),
    "a label that labels.txt lacks": Broken(
        label_tools.write_labelme,
        content("labels.txt", b"__ignore__\ngrass\n"),
        r"has the label '\w+', which is not in labels.txt",
    ),
    "a rectangle of three points": Broken(
        label_tools.write_labelme,
        first_shape(shape_type="rectangle", points=[[1, 1], [2, 2], [3, 3]]),
        r"shapes\[0\] is a rectangle with 3 points: expected 2",
    ),
    "an image of LabelMe that is missing": Broken(
        label_tools.write_labelme, gone("train/picture_0.png"), r"picture_0.json names the image 'picture_0.png'"
    ),
    "an embedded image that is damaged": Broken(
        label_tools.write_labelme,
        lambda root: (
            gone("train/picture_0.png")(root),
            json_file("train/picture_0.json", lambda d: d.update(imageData="§"))(root),
        ),
        r"picture_0.json: its imageData is not base64",
    ),
    "a mask shape that does not fit": Broken(
        functools.partial(label_tools.write_labelme, style="mask"),
        first_shape(points=[[20, 20], [40, 40]]),
        r"shapes\[0\]: its mask of \d+ × \d+ pixels at \(20, 20\) does not fit",
    ),
    "XML that is cut off": Broken(label_tools.write_cvat, cut("annotations.xml"), r"annotations.xml is not XML"),
    "XML with entities": Broken(
        label_tools.write_cvat,
        text_file("annotations.xml", "<annotations>", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>'),
        r"declares a document type or entities",
    ),
    "an export of a video": Broken(
        label_tools.write_cvat,
        content("annotations.xml", b"<annotations><track id='0'/></annotations>"),
        r"CVAT's format for videos",
    ),
    "CVAT's runs of a wrong length": Broken(
        cvat_runs,
        text_file("annotations.xml", 'rle="', 'rle="5, '),
        r"object 0 \(mask\): its runs have \d+ pixels, but its box",
    ),
    "points that are no numbers": Broken(
        label_tools.write_cvat,
        text_file("annotations.xml", 'points="', 'points="a,b;'),
        r"\(polygon\) has points='a': expected a num",
    ),
    "an unknown object in XML": Broken(
        label_tools.write_cvat,
        text_file("annotations.xml", "<polygon", '<blob label="x"/><polygon'),
        r"object 0 \(blob\) is not known",
    ),
    "a class number that is too high": Broken(
        label_tools.write_yolo,
        content("labels/train/picture_0.txt", b"9 0 0 1 0 1 1\n"),
        r"line 1 has the class 9: expected .*0 to 3",
    ),
    "coordinates in pixels": Broken(
        label_tools.write_yolo,
        content("labels/train/picture_0.txt", b"1 0 0 20 0 20 9\n"),
        r"coordinate 20: expected shares",
    ),
    "an odd number of coordinates": Broken(
        label_tools.write_yolo,
        content("labels/train/picture_0.txt", b"1 0 0 1 0 1 1 1\n"),
        r"has 7 coordinates: expected x y",
    ),
    "YAML that is damaged": Broken(
        label_tools.write_yolo, content("data.yaml", b"names: [a, 'b\n"), r"data.yaml is not YAML"
    ),
    "a second file for a photograph": Broken(
        label_tools.write_labelme,
        lambda root: (root / "train/copy.json").write_text((root / "train/picture_0.json").read_text()),
        r"picture_0.json annotates train/picture_0.png, and so does .*copy.json: keep one of them",
    ),
    "an image in the text of a task": Broken(
        studio,
        json_file("project.json", lambda d: d[0]["data"].update(image="data:image/png;base64," + 9999 * "A")),
        r"task 0 holds its image in the text \('data:image/png;base64,A.*save the image",
    ),
    "two exports of one project": Broken(
        studio,
        lambda root: (root / "project_2.json").write_text((root / "project.json").read_text()),
        r"project_2.json: task 0 annotates images/.*picture_0.png, and so does .*project.json: task 0: keep one",
    ),
    "two lists of names": Broken(
        label_tools.write_yolo,
        content("coco8.yaml", b"names: [zebra]\n"),
        r"coco8.yaml and .*data.yaml list different names of classes: name the right file with --input",
    ),
    "YAML with another number of names": Broken(
        label_tools.write_yolo, text_file("data.yaml", "names:", "nc: 7\nnames:"), r"has nc=7, but 4 names"
    ),
    "a brush stroke that is cut off": Broken(
        studio,
        json_file("project.json", lambda d: d[0]["annotations"][0]["result"][0]["value"].update(rle=[0, 0, 9])),
        r"is cut off",
    ),
    "a brush stroke of another size": Broken(
        studio, first_result(original_width=9), r"for a picture of 28 × 24 pixels, others of 9 × 24"
    ),
    "a picture that was turned": Broken(
        studio_polygons, first_result(image_rotation=90), r"on a picture turned by 90 degrees"
    ),
    "an upload that is missing": Broken(
        studio, gone("images/train/picture_0.png"), r"task 0 names the image '/data/upload/1/"
    ),
    "a photograph that is cut off": Broken(coco, cut("images/train2017/picture_0.png"), r"picture_0.png is damaged"),
    "a photograph that is a text": Broken(
        coco, content("images/train2017/picture_0.png", b"hello"), r"picture_0.png cannot be decoded"
    ),
    "an unknown layout": Broken(
        lambda scenes, root: label_tools.write(root / "notes.txt", "hello"),
        lambda root: None,
        r"is of no known format. It holds 1 .txt",
    ),
    "an empty folder": Broken(lambda scenes, root: root.mkdir(), lambda root: None, r"holds no files"),
    "two formats at once": Broken(
        coco,
        lambda root: label_tools.write(root / "a.xml", "<annotations></annotations>"),
        r"fits several formats: coco .*; cvat_xml",
    ),
    "an unknown format": Broken(
        coco, lambda root: None, r"--format=cocoo: expected one of coco,", {"format_name": "cocoo"}
    ),
    "a wrong format": Broken(
        coco, lambda root: None, r"has no file that ends in _gtFine_labelIds", {"format_name": "cityscapes"}
    ),
    "a pattern that matches nothing": Broken(
        coco, lambda root: None, r"--group=xyz matches no part of", {"group": "xyz", "share": 0.5}
    ),
    "a pattern that is wrong": Broken(
        coco, lambda root: None, r"--group=\( is not a regular expression", {"group": "(", "share": 0.5}
    ),
    "one group for all": Broken(
        coco, lambda root: None, r"puts all 4 pictures into one group", {"group": "p", "share": 0.5}
    ),
}
