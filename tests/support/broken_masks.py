"""Broken sources of the formats that store masks."""

import functools
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support import label_tools, mask_folders
from support.import_damages import Broken, content, cut, gone, gray_mask, jpeg, json_file, text_file
from support.label_tools import png

cvat_masks = functools.partial(label_tools.write_voc, label_map=True)
VOC_MASK = "SegmentationClass/picture_0.png"


def classification(root: Path) -> None:
    """Replace the tables by one of images and numbers, without names."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for path in [*root.rglob("*.parquet"), *root.rglob("*.json")]:
        path.unlink()
    pq.write_table(pa.table({"image": [b"a"], "label": [3]}), root / "train.parquet")


def stored_as(file_format: str, num: int = 1, mode: str = "L", **options) -> bytes:
    """Return black pictures of the scenes' size in one file."""
    buffer = io.BytesIO()
    images = [Image.new(mode, (28, 24), (0,) * len(mode) if len(mode) > 1 else i) for i in range(num)]
    images[0].save(
        buffer, file_format, **options, **({"save_all": True, "append_images": images[1:]} if num > 1 else {})
    )
    return buffer.getvalue()


BROKEN_MASKS = {
    "a panoptic PNG that is missing": Broken(
        label_tools.write_panoptic,
        gone("annotations/panoptic_train2017/picture_0.png"),
        r"annotations\[0\] names the PNG 'picture_0.png', which is not in .*panoptic_train2017: unpack",
    ),
    "a panoptic segment that is not listed": Broken(
        label_tools.write_panoptic,
        json_file("annotations/panoptic_train2017.json", lambda d: d["annotations"][0]["segments_info"].pop() and None),
        r"picture_0.png has the segment \d+, which .*annotations\[0\] does not list",
    ),
    "a mask value without a class": Broken(
        label_tools.write_voc,
        content(VOC_MASK, gray_mask([0, 99])),
        r"the value 99 at row 0, column 1 \(336 pixels of it\)",
    ),
    "a picture in two lists": Broken(
        label_tools.write_voc,
        content("ImageSets/Segmentation/val.txt", b"picture_0\n"),
        r"val.txt, line 1: picture_0 is already listed in .*train.txt, line 1",
    ),
    "a mask of another size": Broken(
        label_tools.write_voc, content(VOC_MASK, gray_mask([0, 1], (9, 9))), r"its annotations are for 9 × 9"
    ),
    "a photograph of VOC that is missing": Broken(
        label_tools.write_voc,
        lambda root: [path.unlink() for path in (root / "JPEGImages").glob("picture_0.*")],
        r"picture_0.png names the image 'picture_0.jpg', which is not below [^:]*: put the photographs",
    ),
    "a mask that is a JPEG": Broken(
        label_tools.write_voc, lambda root: jpeg(root / VOC_MASK), r"picture_0.png is a JPEG: its compression changes"
    ),
    "a mask that is a lossy WebP": Broken(
        label_tools.write_voc,
        content(VOC_MASK, stored_as("WEBP")),
        r"picture_0.png is a lossy WebP: its compression changes",
    ),
    "a mask that is an animation": Broken(
        label_tools.write_voc,
        content(VOC_MASK, stored_as("GIF", num=2)),
        r"picture_0.png is an animation of 2 pictures",
    ),
    "a WebP mask with transparent pixels": Broken(
        label_tools.write_voc,
        content(VOC_MASK, stored_as("WEBP", mode="RGBA", lossless=True)),
        r"picture_0.png has transparent pixels, whose colors WebP does not keep",
    ),
    "a damaged mask": Broken(label_tools.write_voc, cut(VOC_MASK), r"picture_0.png (is damaged|cannot be decoded)"),
    "a color without a label": Broken(
        cvat_masks,
        content(VOC_MASK, png(np.full((24, 28, 3), 7, np.uint8))),
        r"the color \(7, 7, 7\) at row 0, column 0 \(672 pixels of it\) is not in .*labelmap.txt; the nearest is",
    ),
    "a color above 255": Broken(
        cvat_masks, text_file("labelmap.txt", "37,91,13", "300,1,1"), r"line 3 has the color 300, 1, 1"
    ),
    "two labels of one color": Broken(
        cvat_masks, text_file("labelmap.txt", "37,91,13", "0,0,0"), r"gives the color 0 0 0 to 'void' and to 'grass'"
    ),
    "two labels of one name": Broken(
        cvat_masks, text_file("labelmap.txt", "house:", "grass:"), r"line 4 repeats the class 'grass' of .*line 3"
    ),
    "a street without a photograph": Broken(
        mask_folders.write_cityscapes,
        gone("leftImg8bit/train/town/picture_0_leftImg8bit.png"),
        r"names the image 'picture_0_leftImg8bit.png'",
    ),
    "an unknown id of Cityscapes": Broken(
        mask_folders.write_cityscapes,
        content("gtFine/train/town/picture_0_gtFine_labelIds.png", gray_mask([7, 77])),
        r"the value 77 at row 0, column 1",
    ),
    "a label beyond Mapillary's list": Broken(
        mask_folders.write_mapillary,
        content("training/labels/picture_0.png", gray_mask([1, 9])),
        r"the value 9 at row 0, column 1",
    ),
    "colors without a list": Broken(
        mask_folders.write_color_masks,
        gone("class_dict.csv"),
        r"the masks have 4 colors \(.*, and no list says what they mean",
    ),
    "a list without a color": Broken(
        mask_folders.write_color_masks,
        content("class_dict.csv", b"void 0 0 0\ngrass\n"),
        r"line 2 \('grass'\) has no color",
    ),
    "a list with a cell too few": Broken(
        mask_folders.write_color_masks, content("class_dict.csv", b"name,r,g,b\nvoid,0,0\n"), r"line 2 has 3 cells"
    ),
    "a gray value in a binary mask": Broken(
        mask_folders.write_binary_masks,
        content("masks/train/picture_0.png", gray_mask([0, 128, 255])),
        r"picture_0.png holds the values 0, 128, 255: expected 0 and 255, or 0 and 1",
        {"format_name": "binary_masks"},
    ),
    "a mask that only the transparency shows": Broken(
        mask_folders.write_binary_masks,
        content(
            "masks/train/picture_0.png",
            png(np.dstack([np.full((24, 28, 3), 255), np.eye(24, 28) * 255]).astype(np.uint8)),
        ),
        r"picture_0.png has transparent and opaque pixels of the color \(255, 255, 255\)",
        {"format_name": "binary_masks"},
    ),
    "two masks of one photograph": Broken(
        mask_folders.write_index_masks,
        content("labels/train/picture_0_mask.png", gray_mask([0, 1])),
        r"labels/train/picture_0_mask.png and .*labels/train/picture_0.png are both masks of images/train/picture_0.png",
    ),
    "a pair in two lists": Broken(
        mask_folders.write_index_masks,
        lambda root: [(root / f"{split}.txt").write_text("images/train/picture_0.png") for split in ("train", "val")],
        r"val.txt, line 1 lists images/train/picture_0.png for validation, but another list names it for training",
    ),
    "a mask without a photograph": Broken(
        mask_folders.write_binary_masks,
        content("masks/train/more_mask.png", gray_mask([0, 255])),
        r"masks/train/more_mask.png has no photograph: expected one called 'more', such as images/more.jpg",
    ),
    "masks of another format": Broken(
        mask_folders.write_binary_masks,
        lambda root: [path.rename(path.with_suffix(".jp2")) for path in list((root / "masks").rglob("*.png"))],
        r"no known format.*masks/train/picture_0.jp2 has the suffix .jp2.*: convert the masks to PNG",
    ),
    "masks of one picture in two sizes": Broken(
        mask_folders.write_class_folders,
        content("masks/house/picture_0.png", gray_mask([0, 255], (9, 9))),
        r"masks of one picture",
    ),
    "numbers without a list": Broken(
        mask_folders.write_index_masks,
        gone("classes.txt"),
        r"masks with one number per pixel, and no list says what they mean",
    ),
}
BROKEN_TABLES = {
    "a table that is cut off": Broken(
        mask_folders.write_hugging_face,
        cut("data/train-00000-of-00001.parquet"),
        r"train-00000-of-00001.parquet cannot be read",
    ),
    "a table of one number for each image": Broken(
        mask_folders.write_hugging_face,
        classification,
        r"train.parquet has the columns image, label: expected one of label maps \(label, annotation, ",
    ),
    "a table without names": Broken(mask_folders.write_hugging_face, gone("id2label.json"), r"has no id2label.json"),
    "names without numbers": Broken(
        mask_folders.write_hugging_face, content("id2label.json", b'{"a": "b"}'), r"does not map numbers to names"
    ),
    "a value without a name": Broken(
        mask_folders.write_hugging_face,
        content("id2label.json", b'{"0": "void", "1": "grass"}'),
        r"row 0: the value \d at row",
    ),
}
