"""Find images and their label maps in an archive, and read their bytes as a `source.FileSource`."""

import dataclasses
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import PurePath

from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.images.image_formats import IMAGE_SUFFIXES, LABEL_SUFFIXES
from pyrseg_jax.data.listing import is_taken, passed_over, say_passed_over
from pyrseg_jax.data.near_names import find_similar, say_similar
from pyrseg_jax.data.source import Record
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.storage.names import comparable


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
      read_label: converts (bytes of a label file, its name for messages) to the bytes of a PNG; None if they stay as they are.
      remarks: lines about files that the split does not contain.
    """

    def __init__(
        self,
        archive: Archive,
        pairs: Sequence[PairFiles],
        read_label: Callable[[bytes, str], bytes] | None = None,
        remarks: Sequence[str] = (),
    ):
        self._archive, self._pairs, self._read_label = archive, pairs, read_label
        self.remarks = tuple(remarks)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Record:
        pair = self._pairs[index]
        image, label = self._archive.read(pair.image), self._archive.read(pair.label)
        label_name = self._archive.place(pair.label)
        if self._read_label:
            with naming_file(label_name, "cannot be read", "replace the file or remove it from the data set"):
                label = self._read_label(label, label_name)
        return {
            "image": image,
            "label": label,
            "image_name": self._archive.place(pair.image),
            "label_name": label_name,
            "name": pair.name,
        }

    def __repr__(self) -> str:  # Grain puts this into its messages
        return f"ArchiveSource({self._archive!r}, {len(self)} pairs)"

    def place(self) -> str:
        """Return the path of the archive, for messages."""
        return self._archive.place()

    def place_of(self, index: int) -> str:
        """Return the path of an image, for messages, without reading it."""
        return self._archive.place(self._pairs[index].image)

    def location(self) -> str:
        """Describe where the files are: the resolved path of the archive and, for a zip, its state."""
        return self._archive.location()

    def fingerprint(self) -> list[str]:
        """Describe the files of each pair in one line that changes whenever a file does."""
        return [f"{self._archive.stamp(pair.image)}; {self._archive.stamp(pair.label)}" for pair in self._pairs]

    def outward_state(self) -> list[str]:
        """Describe what a list of the files shows of each pair; unlike `fingerprint` it need not change when a file does."""
        files = (file for pair in self._pairs for file in (pair.image, pair.label))
        return [os.path.realpath(self._archive.place()), *map(self._archive.outward_stamp, files)]


def pair_source(
    archive: Archive,
    image_folder: str,
    label_folder: str,
    layout: str,
    read_label: Callable[[bytes, str], bytes] | None = None,
) -> ArchiveSource:
    """Return the pairs of two folders; see `list_pairs` for the arguments and errors, and `ArchiveSource` for the result."""
    pairs = list_pairs(archive, image_folder, label_folder, layout)
    return ArchiveSource(archive, pairs, read_label, remarks_on(archive, image_folder, label_folder))


def remarks_on(archive: Archive, image_folder: str, label_folder: str) -> list[str]:
    """Describe the files in both folders that are neither images nor label maps, in one line per folder that has some."""
    folders = ((image_folder, IMAGE_SUFFIXES), (label_folder, LABEL_SUFFIXES))
    found = ((folder, passed_over(archive.entries_in(folder), suffixes)) for folder, suffixes in folders)
    return [say_passed_over(archive.place(folder), text) for folder, text in found if text]


def list_pairs(archive: Archive, image_folder: str, label_folder: str, layout: str) -> list[PairFiles]:
    """Pair the images of one folder with the label maps of the same names in another; sort by name.

    Names that differ only in how an accent is stored, as one character or as two, are the same.

    Args:
      archive: the archive that holds both folders.
      image_folder, label_folder: the names of the folders in the archive.
      layout: the expected layout of the data set, for messages.

    Raises:
      UserError: for a missing or empty folder, an image without a label map, a label map without an image, or two images with
        the same name.
    """
    for folder in (image_folder, label_folder):
        check_folder(archive, folder, layout)
    images = _by_stem(archive, image_folder, IMAGE_SUFFIXES)
    labels = _by_stem(archive, label_folder, LABEL_SUFFIXES)
    if not images:
        others = passed_over(archive.entries_in(image_folder), IMAGE_SUFFIXES)
        holds = f", only {others}" if others else ""
        raise UserError(
            f"{archive.place(image_folder)} contains no images{holds}: expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    _check_partners(archive, images, labels, label_folder, "{} has no label: expected {}.png")
    _check_partners(archive, labels, images, image_folder, "{} has no image: expected {}.jpg or another image format")
    return [PairFiles(stem, images[stem], labels[stem]) for stem in sorted(images)]


def check_folder(archive: Archive, folder: str, layout: str) -> None:
    """Raise UserError if there is no such folder, and name folders of similar names."""
    if archive.has_folder(folder):
        return
    parent, name = str(PurePath(folder).parent), PurePath(folder).name
    entries = archive.entries_in(parent) if archive.has_folder(parent) else None
    if entries and name in entries.files:
        raise UserError(f"{archive.place(folder)} is a file, not a folder: the folder layout is {layout}")
    if entries and name in entries.folders:  # of a zip, where only folders with files are of use
        raise UserError(f"{archive.place(folder)} contains no files: the folder layout is {layout}")
    held = f"; {archive.place(parent)} holds {', '.join(entries.folders[:6])}" if entries and entries.folders else ""
    raise UserError(f"{archive.place(folder)} is missing: the folder layout is {layout}{held}")


def _check_partners(
    archive: Archive, files: dict[str, str], partners: dict[str, str], partner_folder: str, message: str
) -> None:
    missing = sorted(files.keys() - partners.keys())
    if missing:
        entries = archive.entries_in(partner_folder)
        paired = {PurePath(partners[stem]).name for stem in files.keys() & partners.keys()}
        free = entries._replace(files=tuple(name for name in entries.files if name not in paired))
        similar = find_similar(missing[0], free)
        first = message.format(archive.place(files[missing[0]]), archive.place(f"{partner_folder}/{missing[0]}"))
        others = f" ({len(missing) - 1} more such files)" if len(missing) > 1 else ""
        advice = "rename one of them" if similar else "add the missing file, or remove this one"
        raise UserError(f"{first}{say_similar(similar)}{others}: {advice}")


def _by_stem(archive: Archive, folder: str, suffixes: Collection[str]) -> dict[str, str]:
    """Return stem (composed) → path in the archive, for the files of a folder with these suffixes."""
    found: dict[str, str] = {}
    for name in archive.entries_in(folder).files:
        if not is_taken(name, suffixes):
            continue
        stem = comparable(PurePath(name).stem)
        if stem in found:
            other = PurePath(found[stem])
            is_accent = other.stem != PurePath(name).stem
            difference = (
                "in how their accents are stored (Unicode NFC and NFD)" if is_accent else "in the file extension"
            )
            raise UserError(
                f"{archive.place(f'{folder}/{name}')} and {other.name} differ only {difference}: keep one of them"
            )
        found[stem] = f"{folder}/{name}"
    return found
