"""Provide `cityscapes`: street scenes from 50 cities, 2048×1024 pixels, the 19 classes that are evaluated, read in place.

ROOT/leftImg8bit/{train,val,test}/CITY/NAME_leftImg8bit.png
ROOT/gtFine/{train,val,test}/CITY/NAME_gtFine_labelIds.png

2,975 training and 500 validation photographs. The label maps of the test split are not published: theirs are placeholders. The ids
that are not evaluated are void.

Source: Cordts et al., *The Cityscapes Dataset for Semantic Urban Scene Understanding*, CVPR 2016; cityscapesScripts, `labels.py`.
"""

import dataclasses
from pathlib import Path

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.archive import FolderArchive, describe_absence
from pyrseg_jax.data.class_table import read_class_table
from pyrseg_jax.data.label_mapping import LabelMapping
from pyrseg_jax.data.pairs import ArchiveSource, PairFiles
from pyrseg_jax.data.source import Source
from pyrseg_jax.data.spec import DataLocation, Dataset, DatasetSpec
from pyrseg_jax.errors import UserError

NUM_IDS = 34  # 0 … 33; the license plate, -1, is stored as 255
SPLITS = {"training": "train", "validation": "val", "test": "test"}
IMAGES, LABELS = "leftImg8bit", "gtFine"
IMAGE_ENDING, LABEL_ENDING = "_leftImg8bit.png", "_gtFine_labelIds.png"
LAYOUT = f"ROOT/{IMAGES}/SPLIT/CITY/NAME{IMAGE_ENDING} and ROOT/{LABELS}/SPLIT/CITY/NAME{LABEL_ENDING}"
_EVALUATED = read_class_table("cityscapes")
LABEL_SPACE = dataclasses.replace(
    _EVALUATED,
    also=tuple((value, VOID) for value in (*range(1, NUM_IDS), 255) if value not in _EVALUATED.file_ids),
)


def list_pairs(archive: FolderArchive, split: str) -> ArchiveSource:
    """List the pairs of a split, sorted by city and name.

    Raises:
      UserError: naming the file, if a folder or a partner is missing.
    """
    pairs = []
    for folder in (f"{IMAGES}/{SPLITS[split]}", f"{LABELS}/{SPLITS[split]}"):
        if not archive.has_folder(folder):
            raise UserError(f"{archive.place(folder)} is missing: the layout is {LAYOUT}")
    for city in archive.entries_in(f"{IMAGES}/{SPLITS[split]}").folders:
        images, labels = f"{IMAGES}/{SPLITS[split]}/{city}", f"{LABELS}/{SPLITS[split]}/{city}"
        known = set(archive.entries_in(labels).files) if archive.has_folder(labels) else set()
        for file in archive.entries_in(images).files:
            if not file.endswith(IMAGE_ENDING) or file.startswith("."):
                continue
            name = file.removesuffix(IMAGE_ENDING)
            if f"{name}{LABEL_ENDING}" not in known:
                expected = archive.place(f"{labels}/{name}{LABEL_ENDING}")
                raise UserError(
                    f"{archive.place(f'{images}/{file}')} has no label: expected {expected}; "
                    "unpack gtFine_trainvaltest.zip beside the photographs"
                )
            pairs.append(PairFiles(name, f"{images}/{file}", f"{labels}/{name}{LABEL_ENDING}"))
    if not pairs:
        raise UserError(f"{archive.place(f'{IMAGES}/{SPLITS[split]}')} contains no images: the layout is {LAYOUT}")
    return ArchiveSource(archive, pairs)


def _find_root(root: str | None) -> Path:
    if root is None:
        raise UserError(f"root is not set: name the folder that holds {IMAGES} and {LABELS}")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"root={root}: {describe_absence(folder)} ({folder.absolute()}); name the folder that holds {IMAGES} and {LABELS}"
        )
    return folder


def _open(location: DataLocation, mapping: LabelMapping) -> Dataset:
    archive = FolderArchive(_find_root(location.root))

    def open_split(split: str) -> Source:
        if split not in SPLITS:
            raise UserError(f"cityscapes has no split {split!r}: expected one of {', '.join(SPLITS)}")
        return list_pairs(archive, split)

    return Dataset(LABEL_SPACE, archive.place(), open_split)


SPEC = DatasetSpec(
    open=_open,
    read_label_space=lambda root: LABEL_SPACE,
    layout=LAYOUT,
    meaning="Cityscapes, the 19 classes that are evaluated, read in place from the folder that `root` names",
)
