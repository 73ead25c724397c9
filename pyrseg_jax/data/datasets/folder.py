"""Provide `folder`: the user's own images and label maps, in ADE20K's layout, read in place.

ROOT/classes.txt                          one class name per line, in order
ROOT/hierarchy.txt                        optional: groups of classes, see `data.hierarchy`
ROOT/images/{training,validation}/NAME.jpg|png|…  any format of `image_formats.IMAGE_SUFFIXES`
ROOT/annotations/{training,validation}/NAME.png   single-channel: 0 = void, 1 … C = the lines of classes.txt
"""

import dataclasses
from pathlib import Path

from pyrseg_jax.data.archive import FolderArchive, describe_absence
from pyrseg_jax.data.class_names import read_class_names
from pyrseg_jax.data.hierarchy import read_hierarchy
from pyrseg_jax.data.label_mapping import LabelMapping, make_label_space
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.pairs import ArchiveSource, pair_source
from pyrseg_jax.data.spec import DataLocation, Dataset, DatasetSpec
from pyrseg_jax.errors import UserError

LAYOUT = "ROOT/images/SPLIT/NAME.jpg, ROOT/annotations/SPLIT/NAME.png and ROOT/classes.txt"


def find_pairs(root: Path, split: str) -> ArchiveSource:
    """List the pairs of a split, sorted by name; raises UserError as `pairs.list_pairs` does."""
    archive = FolderArchive(root)
    layout = f"{LAYOUT}, here with SPLIT = {split}"
    return pair_source(archive, f"images/{split}", f"annotations/{split}", layout)


def _find_root(root: str | None) -> Path:
    if root is None:
        raise UserError("root is not set: name the folder that holds images/, annotations/ and classes.txt")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"root={root}: {_describe_absence(folder)} ({folder.absolute()}); name the one that holds images/, "
            "annotations/ and classes.txt"
        )
    return folder


def _describe_absence(folder: Path) -> str:
    return "this is a file" if folder.is_file() else describe_absence(folder).replace("file or folder", "folder")


def _open(location: DataLocation, mapping: LabelMapping) -> Dataset:
    folder = _find_root(location.root)
    label_space = _label_space_of(folder, mapping)
    return Dataset(label_space, str(folder), lambda split: find_pairs(folder, split))


def _read_label_space(root: str | None) -> LabelSpace:
    return _label_space_of(_find_root(root), LabelMapping())


def _label_space_of(folder: Path, mapping: LabelMapping) -> LabelSpace:
    names = read_class_names(folder)
    return dataclasses.replace(make_label_space(names, mapping), hierarchy=read_hierarchy(folder, names))


SPEC = DatasetSpec(
    open=_open,
    read_label_space=_read_label_space,
    layout=LAYOUT,
    accepts_label_mapping=True,
    accepts_image_space=True,
    meaning="your own images and label maps, in the folder that `root` names (docs/guide/own_data.md)",
)
