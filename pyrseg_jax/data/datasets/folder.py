"""Provide `folder`: the user's own images and label maps, in ADE20K's layout, read in place.

ROOT/classes.txt                          one class name per line, in order
ROOT/images/{training,validation}/NAME.jpg|jpeg|png
ROOT/annotations/{training,validation}/NAME.png   single-channel: 0 = void, 1 … C = the lines of classes.txt
"""

from pathlib import Path

from pyrseg_jax.data.archive import FolderArchive
from pyrseg_jax.data.label_mapping import LabelMapping, make_label_space
from pyrseg_jax.data.label_space import MAX_CLASSES, LabelSpace
from pyrseg_jax.data.pairs import ArchiveSource, list_pairs
from pyrseg_jax.data.spec import DataLocation, Dataset, DatasetSpec
from pyrseg_jax.errors import UserError

LAYOUT = "ROOT/images/SPLIT/NAME.jpg, ROOT/annotations/SPLIT/NAME.png and ROOT/classes.txt"


def read_class_names(root: Path) -> tuple[str, ...]:
    """Read `classes.txt`.

    Raises:
      UserError: naming the file and line, if it is missing, empty, too long, not text, or holds a name twice.
    """
    path = root / "classes.txt"
    if not path.is_file():
        raise UserError(f"{path} is missing: write one class name per line, in the order of the label values 1 … C")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if lines == [""]:
        raise UserError(f"{path} is empty: write one class name per line, in the order of the label values 1 … C")
    for number, name in enumerate(lines, 1):
        if not name:
            raise UserError(
                f"{path}: line {number} is empty: line i names the class of label value i, so no line may be left out"
            )
        if name in lines[: number - 1]:
            raise UserError(f"{path}: line {number} repeats the class {name!r}: class names must differ")
    if len(lines) > MAX_CLASSES:
        raise UserError(f"{path} names {len(lines)} classes: label maps of eight bits hold at most {MAX_CLASSES}")
    return tuple(lines)


def find_pairs(root: Path, split: str) -> ArchiveSource:
    """List the pairs of a split, sorted by name; raises UserError as `pairs.list_pairs` does."""
    archive = FolderArchive(root)
    layout = f"{LAYOUT}, here with SPLIT = {split}"
    return ArchiveSource(archive, list_pairs(archive, f"images/{split}", f"annotations/{split}", layout))


def _find_root(root: str | None) -> Path:
    if root is None:
        raise UserError("root is not set: name the folder that holds images/, annotations/ and classes.txt")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"root={root}: there is no such folder ({folder.absolute()}); name the one that holds images/, "
            "annotations/ and classes.txt"
        )
    return folder


def _open(location: DataLocation, mapping: LabelMapping) -> Dataset:
    folder = _find_root(location.root)
    label_space = make_label_space(read_class_names(folder), mapping)
    return Dataset(label_space, str(folder), lambda split: find_pairs(folder, split))


def _read_label_space(root: str | None) -> LabelSpace:
    return make_label_space(read_class_names(_find_root(root)))


SPEC = DatasetSpec(
    open=_open,
    read_label_space=_read_label_space,
    layout=LAYOUT,
    accepts_label_mapping=True,
    meaning="your own images and label maps, in the folder that `root` names (docs/guide/own_data.md)",
)
