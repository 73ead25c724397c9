"""Provide `coco_stuff10k`: COCO-Stuff 10K v1.1, 171 classes.

9,000 training and 1,000 test photographs; 91 classes are stuff, 80 are things. Each label map is the variable `S` of a MATLAB file:
0 means unlabeled (void), and 1 … 182 follow COCO's numbering. Of these, 11 things (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
never occur. The other 171 values, in ascending order, are the classes.

Source: Caesar, Uijlings, Ferrari, *COCO-Stuff: Thing and Stuff Classes in Context*, CVPR 2018. The hierarchy of the classes is the
  published one, without the classes that never occur.

Chosen: the colors come from the bits of the label value, as in PASCAL VOC, because no published palette gives every class its
  own color.
"""

import re

from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.class_table import read_class_table
from pyrseg_jax.data.download import PublishedFile
from pyrseg_jax.data.file_dataset import FileDataset
from pyrseg_jax.data.listing import Entries, passed_over, say_passed_over
from pyrseg_jax.data.near_names import find_similar, say_similar
from pyrseg_jax.data.pairs import ArchiveSource, PairFiles
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.names import comparable

LISTS = {"training": "imageLists/train.txt", "test": "imageLists/test.txt"}
LAYOUT = "images/NAME.jpg, annotations/NAME.mat and imageLists/{train,test}.txt, as in cocostuff-10k-v1.1.zip"


def list_splits(archive: Archive) -> dict[str, ArchiveSource]:
    """List the pairs of both splits, in the order of the published lists.

    Raises:
      UserError: naming the list and the line, if a file is missing or a name is listed twice.
    """
    from pyrseg_jax.data.mat_labels import mat_to_png  # imports h5py

    seen: dict[str, str] = {}
    folders = {
        folder: _files_by_name(archive, folder, suffix)
        for folder, suffix in (("images", ".jpg"), ("annotations", ".mat"))
    }
    splits = {split: _read_list(archive, path, folders, seen) for split, path in LISTS.items()}
    remarks = _remarks(archive, splits)
    return {split: ArchiveSource(archive, pairs, mat_to_png, remarks) for split, pairs in splits.items()}


def _files_by_name(archive: Archive, folder: str, suffix: str) -> dict[str, str]:
    """Return name as in the lists (composed) → file name in the archive."""
    files = archive.entries_in(folder).files if archive.has_folder(folder) else ()
    return {comparable(name.removesuffix(suffix)): name for name in files if name.endswith(suffix)}


def _remarks(archive: Archive, splits: dict[str, list[PairFiles]]) -> list[str]:
    """Describe what lies in the folders and is in no list, because the lists decide."""
    listed = {file for pairs in splits.values() for pair in pairs for file in (pair.image, pair.label)}
    lines = []
    for folder in ("images", "annotations"):
        entries = archive.entries_in(folder)
        others = Entries(tuple(name for name in entries.files if f"{folder}/{name}" not in listed), entries.folders)
        if text := passed_over(others, ()):
            lines.append(f"{say_passed_over(archive.place(folder), text)}: no list names them")
    return lines


def _read_list(
    archive: Archive, path: str, folders: dict[str, dict[str, str]], seen: dict[str, str]
) -> list[PairFiles]:
    """Read one list of names. `seen` maps the names from the lists read before to the file and line that list them."""
    pairs = []
    # Bytes that are not UTF-8 are kept as in the names of files.
    text = archive.read(path).decode("utf-8-sig", "surrogateescape")
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        name, where = comparable(line.strip()), f"{archive.place(path)}, line {number}"
        if not name:
            continue
        if name in seen:
            raise UserError(
                f"{where}: {name} is already listed in {seen[name]}: list each image only once, in one split"
            )
        seen[name] = where
        for folder, suffix in (("images", ".jpg"), ("annotations", ".mat")):
            if name not in folders[folder]:
                entries = archive.entries_in(folder) if archive.has_folder(folder) else Entries((), ())
                similar = find_similar(name, entries)
                state = f"is not there{say_similar(similar)}" if similar else "is missing"
                raise UserError(
                    f"{where} names {name}, but {archive.place(f'{folder}/{name}{suffix}')} {state}: add the file, or remove "
                    "the line"
                )
        image, label = (f"{folder}/{folders[folder][name]}" for folder in ("images", "annotations"))
        pairs.append(PairFiles(name, image, label))
    if not pairs:
        raise UserError(f"{archive.place(path)} lists no images: expected one name per line, without .jpg")
    return pairs


FILES = FileDataset(
    name="coco_stuff10k",
    label_space=read_class_table("coco_stuff10k", has_hierarchy=True),
    published=PublishedFile(
        url="http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/cocostuff-10k-v1.1.zip",
        file_name="cocostuff-10k-v1.1.zip",
    ),
    num_images={"training": 9_000, "test": 1_000},
    markers=("imageLists",),
    zip_names=("cocostuff-10k-v1.1.zip",),
    list_splits=list_splits,
    layout=LAYOUT,
    # The published test split plays the part of a validation split; the paper reports its scores on it.
    aliases={"validation": "test"},
    meaning="COCO-Stuff 10K v1.1, 171 classes; downloaded",
)
SPEC = FILES.spec()
