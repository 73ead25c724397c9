"""Images and label maps in a folder of the user's, in ADE20K's layout, read in place.

ROOT/classes.txt                          one class name per line, in order
ROOT/images/{training,validation}/NAME.jpg|jpeg|png
ROOT/annotations/{training,validation}/NAME.png   single-channel: 0 = void, 1 … C = the lines of classes.txt
"""

from pathlib import Path

from pyrseg_jax.data.label_space import MAX_CLASSES, LabelSpace, ade_layout
from pyrseg_jax.data.source import Record
from pyrseg_jax.errors import UserError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
LAYOUT = "ROOT/images/SPLIT/NAME.jpg, ROOT/annotations/SPLIT/NAME.png and ROOT/classes.txt"


class FolderSource:
    """Random access to the pairs of one split."""

    def __init__(self, pairs: list[tuple[Path, Path]]):
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Record:
        image, label = self._pairs[index]
        return {
            "image": _read(image),
            "label": _read(label),
            "image_name": str(image),
            "label_name": str(label),
            "name": image.stem,
        }

    def __repr__(self) -> str:  # Grain puts this into its messages
        return f"FolderSource({len(self)} pairs)"

    def fingerprint(self) -> list[str]:
        """Describe every file such that any change of one shows (size and time of the last change)."""
        files = (path for pair in self._pairs for path in pair)
        return [f"{path.resolve()} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for path in files]


def read_classes(root: Path) -> LabelSpace:
    """Read `classes.txt`.

    Raises:
      UserError: naming the file and line, if it is absent, empty, too long, not text, or holds a name twice.
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
                f"{path}: line {number} is empty: line i names the class of label value i, so none may be left out"
            )
        if name in lines[: number - 1]:
            raise UserError(f"{path}: line {number} repeats the class {name!r}: give each class a name of its own")
    if len(lines) > MAX_CLASSES:
        raise UserError(f"{path} names {len(lines)} classes: label maps of eight bits hold at most {MAX_CLASSES}")
    return ade_layout(tuple(lines))


def find_pairs(root: Path, split: str) -> FolderSource:
    """List the pairs of a split, sorted by name.

    Raises:
      UserError: for a missing or empty folder, an image without a label, a label without an image, or two images of one
        name.
    """
    image_dir, label_dir = root / "images" / split, root / "annotations" / split
    for directory in (image_dir, label_dir):
        if not directory.is_dir():
            raise UserError(f"{directory} is missing: the folder layout is {LAYOUT}, here with SPLIT = {split}")
    images = _by_stem(image_dir, IMAGE_SUFFIXES)
    labels = _by_stem(label_dir, {".png"})
    if not images:
        raise UserError(f"{image_dir} holds no image: expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    _check_partners(images, labels, label_dir, "{} has no label: expected {}.png")
    _check_partners(labels, images, image_dir, "{} has no image: expected {}.jpg or .png")
    return FolderSource([(images[stem], labels[stem]) for stem in sorted(images)])


def _check_partners(files: dict[str, Path], partners: dict[str, Path], partner_dir: Path, message: str) -> None:
    missing = sorted(files.keys() - partners.keys())
    if missing:
        first = message.format(files[missing[0]], partner_dir / missing[0])
        others = f" ({len(missing) - 1} more such files)" if len(missing) > 1 else ""
        raise UserError(f"{first}{others}: add the missing file, or move this one away")


def _by_stem(directory: Path, suffixes: set[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(directory.iterdir()):
        # A name that starts with a dot is the system's own (macOS puts a ._NAME.jpg beside every NAME.jpg).
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UserError(
                f"{path} and {found[path.stem].name} have the same name but for the ending: keep one of them"
            )
        found[path.stem] = path
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): it was there when the data set was listed"
        ) from error
