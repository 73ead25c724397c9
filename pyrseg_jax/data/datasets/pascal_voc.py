"""Provide `pascal_voc`: segmentation in PASCAL VOC 2012 (or another year), 21 classes with the background, read in place.

ROOT/JPEGImages/NAME.jpg
ROOT/SegmentationClass/NAME.png           palette PNG: 0 is background, 1 … 20 are the classes, 255 (the border of objects) is void
ROOT/ImageSets/Segmentation/{train,val}.txt

VOC 2012 has 1,464 training and 1,449 validation photographs. ROOT may also be the folder `VOCdevkit` around it, or the one around
that.

Source: Everingham et al., *The PASCAL Visual Object Classes Challenge: A Retrospective*, IJCV 2015, and the development kit.
"""

from pathlib import Path

from pyrseg_jax.data import listed_pairs
from pyrseg_jax.data.archive import FolderArchive, describe_absence
from pyrseg_jax.data.class_table import read_class_table
from pyrseg_jax.data.label_mapping import LabelMapping
from pyrseg_jax.data.listed_pairs import Kind
from pyrseg_jax.data.source import Source
from pyrseg_jax.data.spec import DataLocation, Dataset, DatasetSpec
from pyrseg_jax.errors import UserError

LISTS = {"training": "ImageSets/Segmentation/train.txt", "validation": "ImageSets/Segmentation/val.txt"}
KINDS = (Kind("JPEGImages", ".jpg"), Kind("SegmentationClass", ".png"))
LAYOUT = "ROOT/JPEGImages/NAME.jpg, ROOT/SegmentationClass/NAME.png and ROOT/ImageSets/Segmentation/{train,val}.txt"
LABEL_SPACE = read_class_table("pascal_voc", void_value=255)


def find_root(root: str | None) -> Path:
    """Return the folder that holds the masks: the root itself, or one at most two levels below it.

    Raises:
      UserError: saying what was expected, if there is none.
    """
    if root is None:
        raise UserError(
            "root is not set: name the folder VOC2012, which holds JPEGImages, SegmentationClass and ImageSets"
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"root={root}: {describe_absence(folder)} ({folder.absolute()}); name the folder VOC2012")
    for base in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))):
        if (base / KINDS[1].folder).is_dir():
            return base
    raise UserError(f"root={root} holds no folder {KINDS[1].folder}: the layout is {LAYOUT}")


def _open(location: DataLocation, mapping: LabelMapping) -> Dataset:
    folder = find_root(location.root)
    archive = FolderArchive(folder)
    found = {split: path for split, path in LISTS.items() if (folder / path).is_file()}
    splits = listed_pairs.list_splits(archive, found, KINDS) if found else {}

    def open_split(split: str) -> Source:
        if split not in splits:
            expected = (
                f"expected one of {', '.join(splits)}" if splits else f"none of {', '.join(LISTS.values())} is there"
            )
            raise UserError(f"{folder} has no split {split!r}: {expected}")
        return splits[split]

    return Dataset(LABEL_SPACE, str(folder), open_split)


SPEC = DatasetSpec(
    open=_open,
    read_label_space=lambda root: LABEL_SPACE,
    layout=LAYOUT,
    meaning="PASCAL VOC segmentation, 20 classes and background, read in place from the folder that `root` names",
)
