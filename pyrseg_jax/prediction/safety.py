"""What `predict` must never replace: inputs, ground truth, files of a run, and what it did not write. Nothing here writes."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from etils import epath

from pyrseg_jax.data.listing import entries_of
from pyrseg_jax.errors import UserError
from pyrseg_jax.prediction.listing import Item
from pyrseg_jax.prediction.manifest import Manifest
from pyrseg_jax.storage.names import comparable
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.storage.regular_file import obstacle

DATA_SET = ("images", "annotations")  # the folders of a data set of the layout `folder`
NUM_NAMED = 3  # files that an error names of each kind; the others are counted
FilesOf = Callable[[Item], Sequence[str]]


def check_plan(
    items: Sequence[Item],
    everything: Sequence[Item],
    files_of: FilesOf,
    manifest: Manifest,
    overwrite: bool,
    kept: Mapping[Path, str],
) -> None:
    """Raise an error unless every file can be written without harm.

    In remote storage, only collisions are found here: `writing.Writer` looks at each file before it writes.

    Args:
      items: the images of this process.
      everything: the images of all processes: no two of them may write the same file.
      files_of: the files of an image, by their paths below the output folder.
      manifest: the record of what `predict` wrote to the output folder, which need not exist.
      overwrite: whether other files in the folder may be replaced. Inputs and ground truth never are.
      kept: folders in which nothing may be written, with the reason as it ends a sentence.

    Raises:
      UserError: with the first of the files in question, how many more there are, and what to do.
    """
    if is_remote(manifest.folder):
        problems = list(_written_twice(everything, files_of, False))
    else:
        folder, local = Path(manifest.folder), [item for item in items if not is_remote(item.path)]
        kept = _data_sets_of(local) | _data_set_around(folder) | dict(kept)
        problems = [
            *_in_kept_folder(items, local, folder, kept),
            *_written_twice(everything, files_of, is_case_ignored(folder)),
            *_never_replaced(items, local, files_of, folder, manifest),
            *(() if overwrite else _foreign(items, files_of, folder, manifest)),
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


def _data_sets_of(items: Sequence[Item]) -> dict[Path, str]:
    """Return the folders of the data sets that the images belong to; an image may be a link into one."""
    folders = {path.parent for item in items for path in (Path(item.path).absolute(), _behind_links(item.path))}
    roots = {folder.parents[1] for folder in folders if folder.parent.name == "images"}
    return {place: reason for root in sorted(roots) for place, reason in folders_of_data_set(root).items()}


def _data_set_around(folder: Path) -> dict[Path, str]:
    """Return the folders of a data set that an output lies in: the images may be copies of those of the data set."""
    behind = _behind_links(folder)
    roots = [place.parent for place in (behind, *behind.parents) if place.name in DATA_SET]
    return {place: reason for root in roots for place, reason in folders_of_data_set(root).items()}


def _in_kept_folder(
    items: Sequence[Item], local: Sequence[Item], folder: Path, kept: Mapping[Path, str]
) -> Iterator[str]:
    folders = {folder.joinpath(*item.name.split("/")[:-1]) for item in items} | {folder}
    inputs = {_identity(parent) for parent in {item.path.parent for item in local}} - {None}
    for place in sorted(folders):
        behind = _behind_links(place)
        around = {_identity(one) for one in (behind, *behind.parents)} - {None}
        if _identity(place) in inputs:
            yield f"--output={place} is the folder of the input, where NAME.png could overwrite an image (name another folder)"
            return
        for one, reason in kept.items():
            if _identity(one) in around:
                yield f"--output={place} is in {one}, which {reason} (name another folder)"
                return


def _written_twice(items: Sequence[Item], files_of: FilesOf, is_case_ignored: bool) -> Iterator[str]:
    first: dict[str, Item] = {}
    pairs: dict[tuple[str, str], tuple[Item, Item, str]] = {}
    for item in items:
        for name in files_of(item):
            key = comparable(name).casefold() if is_case_ignored else name
            other = first.setdefault(key, item)
            if other.key != item.key:
                pairs.setdefault((other.key, item.key), (other, item, name))
    found = [f"{one.path} and {other.path.name} would both write {name}" for one, other, name in pairs.values()]
    if found:
        yield f"{_listed(found, 'pair')} (rename one, or predict them separately)"


def _never_replaced(
    items: Sequence[Item], local: Sequence[Item], files_of: FilesOf, folder: Path, manifest: Manifest
) -> Iterator[str]:
    if folder.exists() and not folder.is_dir():
        yield f"--output={folder} is not a folder (name a folder)"
        return
    existing = list(_existing(items, files_of, folder, manifest))
    if not existing:
        return
    sources = {_identity(item.path): "an input" for item in local}
    sources |= {_identity(item.truth): "ground truth" for item in local if item.truth}
    found = []
    for name in existing:
        kind = obstacle(folder / name) or sources.get(_identity(folder / name))
        if kind:
            found.append(f"{folder / name} is {kind}")
    if found:
        yield f"{_listed(found, 'path')} (move it, or name another folder)"


def _foreign(items: Sequence[Item], files_of: FilesOf, folder: Path, manifest: Manifest) -> Iterator[str]:
    own = manifest.path.name
    found = [
        str(folder / name)
        for name in _existing(items, files_of, folder, manifest)
        if not obstacle(folder / name)
        and (manifest.path in manifest.foreign if name == own else manifest.is_foreign(name))
    ]
    if found:
        yield (
            f"{_listed(found, 'file')} would be replaced, but predict did not write it, or it was changed since (name another "
            "folder, or give --overwrite)"
        )


def _existing(items: Sequence[Item], files_of: FilesOf, folder: Path, manifest: Manifest) -> Iterator[str]:
    """List what is at the paths that would be written, by their paths below the folder."""
    if not folder.is_dir():
        return
    names = (manifest.path.name, *(name for item in items for name in files_of(item)))
    yield from (name for name in names if os.path.lexists(folder / name))


def _identity(path: Path | epath.Path) -> tuple[int, int] | None:
    """Return what tells a file from all others, whatever its path; links are followed."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _behind_links(path: Path | epath.Path) -> Path:
    """Return the path without links; unlike `Path.resolve`, this raises no error for links that lead to themselves."""
    return Path(os.path.realpath(path))


def _listed(found: Sequence[str], noun: str) -> str:
    more = len(found) - NUM_NAMED
    return ", ".join(found[:NUM_NAMED]) + (f" and {more} more {noun}{'s' * (more > 1)}" if more > 0 else "")
