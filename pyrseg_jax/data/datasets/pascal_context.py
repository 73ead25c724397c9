"""Provide `pascal_context`: the 59 most frequent classes of PASCAL-Context, on the photographs of PASCAL VOC 2010.

4,998 training and 5,105 validation photographs, 500 pixels wide or high. The authors label 459 categories. The 59 classes that
results are reported on are categories of their own; every other category, and 0 (unlabeled), is void.

Two layouts are read:

* The authors' files: `trainval/NAME.mat`, each with the variable `LabelMap` (0, or a category from 1 to 459). The splits are
  `ImageSets/Main/{train,val}.txt` of PASCAL VOC 2010. If the authors' `labels.txt` lies beside `trainval/`, the names and numbers
  of the 59 classes in it are checked.
* Converted files, as mmsegmentation's tool writes them beside the photographs: `SegmentationClassContext/NAME.png` (0 is void,
  1 … 59 are the classes) and `ImageSets/SegmentationContext/{train,val}.txt`.

Source: Mottaghi et al., *The Role of Context for Object Detection and Semantic Segmentation in the Wild*, CVPR 2014; Everingham
et al., *The PASCAL Visual Object Classes Challenge 2010*. The order of the classes is alphabetical, like the numbers of the
categories and like the classes of mmsegmentation's PascalContextDataset59, so that its checkpoints fit. The authors' list of 59
has another order.

Chosen: the colors come from the bits of the label value, as in PASCAL VOC, because the authors publish no palette. Where COCO-Stuff
  has the class, it decides whether the class is stuff; a table is a thing, as in PASCAL VOC.
"""

import numpy as np

from pyrseg_jax.data import listed_pairs
from pyrseg_jax.data.archive import Archive, find_archive, open_archive
from pyrseg_jax.data.class_table import read_class_table, read_column
from pyrseg_jax.data.download import PublishedFile
from pyrseg_jax.data.file_dataset import FileDataset
from pyrseg_jax.data.joined_archive import JoinedArchive
from pyrseg_jax.data.listed_pairs import Kind
from pyrseg_jax.data.pairs import ArchiveSource
from pyrseg_jax.errors import UserError

LABEL_SPACE = read_class_table("pascal_context")
CATEGORIES = read_column("pascal_context", "category")  # number of each class among the 459 categories
NUM_CATEGORIES = 459
VARIABLE = "LabelMap"
LABEL_LIST = "labels.txt"
CONVERTED = "SegmentationClassContext"
LAYOUT = (
    "VOC2010/JPEGImages/NAME.jpg and VOC2010/ImageSets/Main/{train,val}.txt, as in VOCtrainval_03-May-2010.tar, with "
    "trainval/NAME.mat, as in trainval.tar.gz, in the same place; or VOC2010/SegmentationClassContext/NAME.png"
)
ANNOTATIONS = PublishedFile(
    url="https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz", file_name="trainval.tar.gz"
)
PHOTOGRAPHS = PublishedFile(
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
    file_name="VOCtrainval_03-May-2010.tar",
    md5="da459979d0c395079b5c75ee67908abb",  # as torchvision records it
    note=f", together with {ANNOTATIONS.file_name} from {ANNOTATIONS.url}",
)


def find(root: str) -> Archive:
    """Find the photographs and the label maps below the user's root.

    Returns:
      An archive with the part `photographs`, which is the folder VOC2010, and, in the authors' layout, the part `annotations`,
      which is the folder that holds `trainval`.

    Raises:
      UserError: saying what was expected, if one of them is not there.
    """
    markers = ("VOC2010/JPEGImages", "JPEGImages")
    photographs = open_archive(root, markers, (PHOTOGRAPHS.file_name,), "PASCAL VOC 2010")
    if photographs.has_folder(markers[0]):
        photographs = photographs.below("VOC2010")
    annotations = find_archive(root, ("trainval",), (ANNOTATIONS.file_name,), "PASCAL-Context's label maps")
    if annotations is not None:
        return JoinedArchive({"photographs": photographs, "annotations": annotations})
    if photographs.has_folder(CONVERTED):
        return JoinedArchive({"photographs": photographs})
    raise UserError(
        f"root={root} holds the photographs ({photographs.place()}), but no label maps: put {ANNOTATIONS.file_name} from "
        f"{ANNOTATIONS.url} or its unpacked folder trainval into it"
    )


def list_splits(archive: Archive) -> dict[str, ArchiveSource]:
    """List the pairs of both splits, in the order of the published lists.

    Raises:
      UserError: as `listed_pairs.list_splits` does, and for a `labels.txt` that is not the published one.
    """
    assert isinstance(archive, JoinedArchive)
    images = Kind("photographs/JPEGImages", ".jpg")
    if not archive.has_part("annotations"):
        kinds = (images, Kind(f"photographs/{CONVERTED}", ".png"))
        return listed_pairs.list_splits(archive, _lists("SegmentationContext"), kinds)
    if LABEL_LIST in archive.entries_in("annotations/.").files:
        check_label_list(archive.read(f"annotations/{LABEL_LIST}"), archive.place(f"annotations/{LABEL_LIST}"))
    kinds = (images, Kind("annotations/trainval", ".mat"))
    return listed_pairs.list_splits(archive, _lists("Main"), kinds, mat_to_png)


def _lists(folder: str) -> dict[str, str]:
    splits = {"training": "train", "validation": "val"}
    return {split: f"photographs/ImageSets/{folder}/{name}.txt" for split, name in splits.items()}


def check_label_list(data: bytes, name: str) -> None:
    """Check that the authors' list of categories gives each of the 59 classes, once, the number that the label maps use.

    Args:
      data: bytes of `labels.txt`: 459 lines such as `9: bag`.
      name: name of the file, for messages.

    Raises:
      UserError: naming the file and the first class that is missing or has another number.
    """
    found: dict[str, list[str]] = {}
    for line in data.decode("utf-8-sig", "replace").splitlines():
        number, _, label = line.partition(":")
        found.setdefault(label.strip(), []).append(number.strip())
    for label, category in zip(LABEL_SPACE.names, CATEGORIES, strict=True):
        numbers = found.get(label, [])
        if numbers != [str(category)]:
            state = f"has {label!r} with the number {' and '.join(numbers)}" if numbers else f"has no {label!r}"
            raise UserError(
                f"{name} {state}, which is one of the 59 classes: expected the line '{category}: {label}'; replace the file with "
                "the published one, or remove it, because the numbers are known"
            )


def mat_to_png(data: bytes, name: str) -> bytes:
    """Convert a `.mat` file with a `LabelMap` of categories to a PNG of the 59 classes: 0 is void, class i has the value i + 1.

    Raises:
      UserError: naming the file, if it cannot be read, has no `LabelMap`, or if that holds anything but whole numbers to 459.
    """
    from pyrseg_jax.data.mat_labels import encode_label_map, read_whole_numbers  # imports h5py

    to_value = np.zeros(NUM_CATEGORIES + 1, np.uint8)
    to_value[list(CATEGORIES)] = LABEL_SPACE.file_ids
    return encode_label_map(to_value[read_whole_numbers(data, name, VARIABLE, NUM_CATEGORIES)])


FILES = FileDataset(
    name="pascal_context",
    label_space=LABEL_SPACE,
    published=PHOTOGRAPHS,
    further=(ANNOTATIONS,),
    num_images={"training": 4_998, "validation": 5_105},
    find=find,
    list_splits=list_splits,
    layout=LAYOUT,
    meaning="PASCAL-Context on PASCAL VOC 2010, 59 classes; downloaded",
)
SPEC = FILES.spec()
