"""Find images and their label maps in an archive, and read their bytes as a `source.FileSource`."""

import dataclasses
from collections.abc import Callable, Sequence

from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.source import Record
from pyrseg_jax.errors import UserError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclasses.dataclass(frozen=True)
class PairFiles:
    """Names of an image and its label map in an archive, and of the pair itself."""

    name: str
    image: str
    label: str


class ArchiveSource:
    """The pairs of one split, with random access.

    Args:
      archive: the archive that holds the files.
      pairs: the pairs, in order.
      read_label: converts (bytes of a label file, its name for messages) to the bytes of a PNG; None if the files are PNGs.
    """

    def __init__(
        self, archive: Archive, pairs: Sequence[PairFiles], read_label: Callable[[bytes, str], bytes] | None = None
    ):
        self._archive, self._pairs, self._read_label = archive, pairs, read_label

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Record:
        pair = self._pairs[index]
        image, label, label_name = (
            self._archive.read(pair.image),
            self._archive.read(pair.label),
            self._archive.place(pair.label),
        )
        return {
            "image": image,
            "label": self._read_label(label, label_name) if self._read_label else label,
            "image_name": self._archive.place(pair.image),
            "label_name": label_name,
            "name": pair.name,
        }

    def __repr__(self) -> str:  # Grain puts this into its messages
        return f"ArchiveSource({self._archive!r}, {len(self)} pairs)"

    def place(self) -> str:
        """Return the path of the archive, for messages."""
        return self._archive.place()

    def fingerprint(self) -> list[str]:
        """Describe the files of each pair in one line that changes whenever a file does."""
        return [f"{self._archive.stamp(pair.image)}; {self._archive.stamp(pair.label)}" for pair in self._pairs]


def list_pairs(archive: Archive, image_folder: str, label_folder: str, layout: str) -> list[PairFiles]:
    """Pair the images of one folder with the label maps of the same names in another; sort by name.

    Args:
      archive: the archive that holds both folders.
      image_folder, label_folder: the names of the folders in the archive.
      layout: the expected layout of the data set, for messages.

    Raises:
      UserError: for a missing or empty folder, an image without a label map, a label map without an image, or two images with
        the same name.
    """
    for folder in (image_folder, label_folder):
        if not archive.has_folder(folder):
            raise UserError(f"{archive.place(folder)} is missing: the folder layout is {layout}")
    images = _by_stem(archive, image_folder, IMAGE_SUFFIXES)
    labels = _by_stem(archive, label_folder, (".png",))
    if not images:
        raise UserError(
            f"{archive.place(image_folder)} contains no images: expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    _check_partners(archive, images, labels, label_folder, "{} has no label: expected {}.png")
    _check_partners(archive, labels, images, image_folder, "{} has no image: expected {}.jpg, .jpeg or .png")
    return [PairFiles(stem, images[stem], labels[stem]) for stem in sorted(images)]


def _check_partners(
    archive: Archive, files: dict[str, str], partners: dict[str, str], partner_folder: str, message: str
) -> None:
    missing = sorted(files.keys() - partners.keys())
    if missing:
        first = message.format(archive.place(files[missing[0]]), archive.place(f"{partner_folder}/{missing[0]}"))
        others = f" ({len(missing) - 1} more such files)" if len(missing) > 1 else ""
        raise UserError(f"{first}{others}: add the missing file, or remove this one")


def _by_stem(archive: Archive, folder: str, suffixes: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in archive.files_in(folder):
        stem, dot, suffix = name.rpartition(".")
        # Skip hidden files: macOS may write a ._NAME.jpg next to each NAME.jpg.
        if dot + suffix.lower() not in suffixes or name.startswith("."):
            continue
        if stem in found:
            raise UserError(
                f"{archive.place(f'{folder}/{name}')} and {found[stem].rpartition('/')[2]} differ only in the file extension: keep "
                "one of them"
            )
        found[stem] = f"{folder}/{name}"
    return found
