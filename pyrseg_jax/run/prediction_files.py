"""The files of `predict`: which it reads, which it writes, and what it must never replace. Nothing here writes."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pyrseg_jax.data.images.image_formats import IMAGE_SUFFIXES, LABEL_SUFFIXES, SUFFIXES
from pyrseg_jax.data.listing import entries_of, is_taken, passed_over
from pyrseg_jax.errors import UserError
from pyrseg_jax.reporting.pictures import name_of_geotiff, names_of_pictures
from pyrseg_jax.storage.names import comparable, file_name_of
from pyrseg_jax.storage.regular_file import kind_of
from pyrseg_jax.storage.written import WrittenFiles, obstacle

RECORD = "predictions.jsonl"
DATA_SET = ("images", "annotations")  # the folders of a data set of the layout `folder`
NUM_NAMED = 3  # files that an error names of each kind; the others are counted


class Images(NamedTuple):
    """The images to segment.

    paths: of the images, sorted.
    others: a description of what else the folder holds, "" for nothing.
    """

    paths: list[Path]
    others: str = ""


class Planned(NamedTuple):
    """An image to segment, and what belongs to it.

    image: path of the image.
    name: the part that the names of its files begin with.
    truth: path of its label map if it lies in a data set of the layout `folder`, or None.
    """

    image: Path
    name: str
    truth: Path | None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files to write; a TIFF may have a place on Earth, which its label map gets as well."""
        is_tiff = self.image.suffix.lower() in SUFFIXES["TIFF"]
        return (*names_of_pictures(self.name), *((name_of_geotiff(self.name),) if is_tiff else ()))


def find_images(source: Path) -> Images:
    """Find the image to segment, or the images of a folder, without those in folders below it.

    Raises:
      UserError: if there are none.
    """
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISREG(mode):
            return Images([source])
        if not stat.S_ISDIR(mode):
            raise UserError(f"--input={source} is {kind_of(mode)}: expected an image or a folder of images")
        entries = entries_of(source)
    except FileNotFoundError as error:
        raise UserError(f"--input={source}: there is no such file or folder ({source.absolute()})") from error
    except OSError as error:
        raise UserError(f"--input={source} cannot be read ({error.strerror or error}): name another") from error
    paths = [source / name for name in entries.files if is_taken(name, IMAGE_SUFFIXES)]
    others = passed_over(entries, IMAGE_SUFFIXES)
    if not paths:
        found = f"it holds {others}" if others else "it is empty"
        raise UserError(f"--input={source} holds no images ({found}): expected {', '.join(sorted(IMAGE_SUFFIXES))}")
    return Images(paths, others)


def plan(images: Sequence[Path]) -> list[Planned]:
    """Name the files of each image, and find its ground truth."""
    labels = {folder: _labels_beside(folder) for folder in {path.parent for path in images}}

    def truth_of(path: Path) -> Path | None:
        beside = labels[path.parent]
        return beside.get(path.stem) or beside.get(comparable(path.stem))

    return [Planned(path, file_name_of(path.stem), truth_of(path)) for path in images]


def check_plan(
    planned: Sequence[Planned], folder: Path, written: WrittenFiles, overwrite: bool, kept: Mapping[Path, str]
) -> None:
    """Raise an error unless every file can be written without harm.

    Args:
      planned: the images and their files.
      folder: the folder to write to, which need not exist.
      written: the record of what `predict` wrote there before.
      overwrite: whether other files in the folder may be replaced. Inputs and ground truth never are.
      kept: folders in which nothing may be written, with the reason as it ends a sentence.

    Raises:
      UserError: with the first of the files in question, how many more there are, and what to do.
    """
    kept = _data_sets_of(planned) | _data_set_around(folder) | dict(kept)
    problems = [
        *_in_kept_folder(planned, folder, kept),
        *_written_twice(planned, is_case_ignored(folder)),
        *_never_replaced(planned, folder, written),
        *(() if overwrite else _foreign(planned, folder, written)),
    ]
    if problems:
        raise UserError(f"nothing was predicted: {'; '.join(problems)}")


def folders_of_data_set(root: Path) -> dict[Path, str]:
    """Return the folders that hold the pairs of a data set of the layout `folder`, each with the reason to keep it.

    Those of the splits are among them, because they may be links that lead elsewhere.
    """
    places = [root / name for name in DATA_SET]
    if not all(place.is_dir() for place in places):
        return {}
    splits = [place / name for place in places for name in entries_of(place).folders]
    return dict.fromkeys([*places, *splits], "holds a data set")


def folders_of_run(workdir: Path) -> dict[Path, str]:
    """Return the folders that a run writes to, each with the reason to keep it."""
    names = ("checkpoints", "evaluation", "figures", "tensorboard")
    return dict.fromkeys((workdir / name for name in names), "belongs to the run")


def is_case_ignored(folder: Path) -> bool:
    """Return whether the file system of a folder takes `A` and `a` for the same name, as those of macOS and Windows do."""
    for place in (folder.absolute(), *folder.absolute().parents):
        if place.name.swapcase() != place.name and place.exists():
            return (other := place.with_name(place.name.swapcase())).exists() and other.samefile(place)
    return False


def _labels_beside(folder: Path) -> dict[str, Path]:
    """Return the label maps of the images of a folder, by their names as they are and as `comparable` forms them."""
    for place in (folder.absolute(), folder.resolve()):
        labels = place.parents[1] / "annotations" / place.name if place.parent.name == "images" else None
        if labels is not None and labels.is_dir():
            found = [labels / name for name in entries_of(labels).files if is_taken(name, LABEL_SUFFIXES)]
            return {comparable(path.stem): path for path in found} | {path.stem: path for path in found}
    return {}


def _data_sets_of(planned: Sequence[Planned]) -> dict[Path, str]:
    """Return the folders of the data sets that the images belong to; an image may be a link into one."""
    folders = {path.parent for item in planned for path in (item.image.absolute(), _behind_links(item.image))}
    roots = {folder.parents[1] for folder in folders if folder.parent.name == "images"}
    return {place: reason for root in sorted(roots) for place, reason in folders_of_data_set(root).items()}


def _data_set_around(folder: Path) -> dict[Path, str]:
    """Return the folders of a data set that an output lies in: the images may be copies of those of the data set."""
    behind = _behind_links(folder)
    roots = [place.parent for place in (behind, *behind.parents) if place.name in DATA_SET]
    return {place: reason for root in roots for place, reason in folders_of_data_set(root).items()}


def _in_kept_folder(planned: Sequence[Planned], folder: Path, kept: Mapping[Path, str]) -> Iterator[str]:
    behind = _behind_links(folder)
    around = {_identity(place) for place in (behind, *behind.parents)} - {None}
    if _identity(folder) in {_identity(item.image.parent) for item in planned} - {None}:
        yield f"--output={folder} is the folder of the input, where NAME.png could overwrite an image (name another folder)"
        return
    for place, reason in kept.items():
        if _identity(place) in around:
            yield f"--output={folder} is in {place}, which {reason} (name another folder)"
            return


def _written_twice(planned: Sequence[Planned], is_case_ignored: bool) -> Iterator[str]:
    first: dict[str, Path] = {}
    pairs: dict[tuple[Path, Path], str] = {}
    for item in planned:
        for name in item.files:
            key = comparable(name).casefold() if is_case_ignored else name
            if first.setdefault(key, item.image) != item.image:
                pairs.setdefault((first[key], item.image), name)
    found = [f"{one} and {other.name} would both write {name}" for (one, other), name in pairs.items()]
    if found:
        yield f"{_listed(found, 'pair')} (rename one, or predict them separately)"


def _never_replaced(planned: Sequence[Planned], folder: Path, written: WrittenFiles) -> Iterator[str]:
    if folder.exists() and not folder.is_dir():
        yield f"--output={folder} is not a folder (name a folder)"
        return
    sources = {_identity(item.image): "an input" for item in planned}
    sources |= {_identity(item.truth): "ground truth" for item in planned if item.truth}
    found = []
    for path in _existing(planned, folder, written):
        kind = obstacle(path) or sources.get(_identity(path))
        if kind:
            found.append(f"{path} is {kind}")
    if found:
        yield f"{_listed(found, 'path')} (move it, or name another folder)"


def _foreign(planned: Sequence[Planned], folder: Path, written: WrittenFiles) -> Iterator[str]:
    found = [
        str(path) for path in _existing(planned, folder, written) if not obstacle(path) and _is_foreign(path, written)
    ]
    if found:
        yield (
            f"{_listed(found, 'file')} would be replaced, but predict did not write it, or it was changed since (name another "
            "folder, or give --overwrite)"
        )


def _is_foreign(path: Path, written: WrittenFiles) -> bool:
    return written.is_foreign_itself if path == written.path else written.is_foreign(path)


def _existing(planned: Sequence[Planned], folder: Path, written: WrittenFiles) -> Iterator[Path]:
    """List what is at the paths that would be written."""
    if folder.is_dir():
        names = (written.path.name, *(name for item in planned for name in item.files))
        yield from (folder / name for name in names if os.path.lexists(folder / name))


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from all others, whatever its path; links are followed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _behind_links(path: Path) -> Path:
    """Return the path without links; unlike `Path.resolve`, this raises no error for links that lead to themselves."""
    return Path(os.path.realpath(path))


def _listed(found: Sequence[str], noun: str) -> str:
    more = len(found) - NUM_NAMED
    return ", ".join(found[:NUM_NAMED]) + (f" and {more} more {noun}{'s' * (more > 1)}" if more > 0 else "")
