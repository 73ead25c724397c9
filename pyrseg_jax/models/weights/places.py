"""From what a user names to files of weights on this machine: a file, several files, a folder, or an address of the hub."""

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.files import PICKLED, SAFETENSORS
from pyrseg_jax.storage import documents, hub
from pyrseg_jax.storage.names import ABOUT_MODEL

log = logging.getLogger(__name__)

INDEX = ".index.json"  # ends the name of a file that lists the parts of a network
# Files of weights as libraries save them, the preferred first. None of the first two needs PyTorch.
STANDARD = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
READABLE = SAFETENSORS + PICKLED
# What training programs of transformers save beside the weights.
OTHERS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.bin", "scheduler.pt")
MAX_PARTS = 1000
NUM_NAMED = 5  # files that an error message lists before "and 7 more"


class Place(NamedTuple):
    """Files of weights on this machine.

    Attributes:
      paths: the files; several are parts of one network.
      name: how a record of the run names them: paths, or an address of the hub with the commit.
      commit: the commit of the hub's repository that they are of, if it is known.
      is_model: whether they are the weights of a model of this package in the hub, whose other files are beside them.
    """

    paths: tuple[Path, ...]
    name: str
    commit: str | None = None
    is_model: bool = False


class _Index(documents.Document):
    model_config = ConfigDict(frozen=True, extra="allow")

    weight_map: dict[str, str]
    metadata: dict[str, Any] = {}


def holds_weights(folder: Path) -> bool:
    """Return whether a folder holds files of weights, or is a repository of the hub's cache."""
    return hub.is_repository_folder(folder) or any(is_readable(path.name) for path in folder.iterdir())


def is_readable(name: str) -> bool:
    """Return whether a name is that of a file of weights that this package reads, or of a list of such files."""
    return name in STANDARD or (name.lower().endswith(READABLE) and name not in OTHERS)


def locate(text: str) -> Place:
    """Return the files that a text names, downloaded if they are in the hub and not in its cache.

    Args:
      text: the path of a file; several paths, joined with commas, of files that hold parts of one network; a folder with
        `model.safetensors`, with parts and their index, or with `pytorch_model.bin`; a repository's folder in the hub's cache; or
        an address of the hub, see `storage.hub`. Addresses may stand among paths.

    Raises:
      UserError: naming the text, if there are no weights that this package reads, or if they cannot be downloaded.
    """
    whole = Path(text).expanduser()
    names = [name.strip() for name in text.split(",")]
    if hub.is_address(text) and len(names) == 1:
        return _in_hub(hub.parse_address(text))
    if not hub.is_address(text) and (whole.exists() or not all(names) or len(names) == 1):
        return _in_folder(whole) if whole.is_dir() else Place((whole,), str(whole), hub.commit_of(whole))
    places = [locate(name) for name in names]
    commits = {place.commit for place in places}
    return Place(
        tuple(path for place in places for path in place.paths),
        ",".join(place.name for place in places),
        commits.pop() if len(commits) == 1 else None,
    )


def choose(names: Collection[str], where: str) -> str:
    """Choose the file of weights among the files of a folder or a repository.

    Args:
      names: their names.
      where: the folder or the address, for messages.

    Raises:
      UserError: if there is none, or if there are several and none has a standard name.
    """
    chosen = _only(names)
    if chosen is not None:
        return chosen
    readable = [name for name in names if is_readable(name)]
    if readable:
        raise UserError(
            f"{where} holds {len(readable)} files of weights ({_some(readable)}): add the name of one: {where}/FILE"
        )
    raise UserError(
        f"{where} holds no weights that this package reads, but {_some(names) or 'nothing'}: expected {', '.join(STANDARD[:3])}, "
        f"or a name ending in {', '.join(READABLE)}; convert files of TensorFlow, Flax or ONNX to .safetensors"
    )


def _only(names: Collection[str]) -> str | None:
    """Return the preferred file of weights; None if there is none, or several without a standard name."""
    standard = [name for name in STANDARD if name in names]
    readable = [name for name in names if is_readable(name)]
    return standard[0] if standard else readable[0] if len(readable) == 1 else None


def parts_of(index: Path) -> tuple[str, ...]:
    """Return the names of the files that an index lists.

    Raises:
      UserError: naming the index, if it is damaged or names files elsewhere.
    """
    found = documents.read_json(index, _Index, "download it again").weight_map
    names = sorted(set(found.values()))
    if not names or len(names) > MAX_PARTS:
        raise UserError(f"{index} lists {len(names)} files: expected 1 … {MAX_PARTS}; download it again")
    for name in names:
        if not hub.is_inside(name) or not name.isprintable() or not name.lower().endswith(READABLE):
            raise UserError(
                f"{index} names {documents.shorten(name)} as a part: expected files of weights beside it; download it again"
            )
    return tuple(names)


def _in_folder(folder: Path) -> Place:
    """Return the weights in a folder, or in a repository's folder of the cache."""
    if hub.is_repository_folder(folder):
        folder = hub.only_snapshot(folder)
    chosen = folder / choose(sorted(path.name for path in folder.iterdir()), str(folder))
    paths = _with_parts(chosen, lambda name: folder / name)
    commit = hub.commit_of(chosen.absolute())
    log.info("%s: taking %s%s", folder, chosen.name, f" of commit {commit}" if commit else "")
    return Place(paths, str(chosen), commit)


def _in_hub(address: hub.Address) -> Place:
    """Return the weights of a repository: from the cache if they are there, or else from the network."""
    cached = _in_cache(address)
    if cached is not None:
        chosen, paths = cached
        names = [path.name for path in chosen.parent.iterdir()]
    else:
        names = [] if address.file else hub.list_files(address)
        file = address.file or choose(names, str(address))
        log.info("%s: downloading %s", address, file)
        chosen = hub.download(address, file)
        # The other parts are of the same commit, even if the branch has moved in the meantime.
        at = address._replace(revision=hub.commit_of(chosen) or address.revision)
        beside = file.rpartition("/")[0]
        paths = _with_parts(chosen, lambda name: hub.download(at, f"{beside}/{name}".lstrip("/")))
    commit = hub.commit_of(chosen)
    named = address._replace(revision=commit or address.revision, file=address.file or chosen.name)
    log.info("%s: taking %s, commit %s%s", address, chosen, commit, "" if cached is None else ", from the cache")
    return Place(paths, str(named), commit, address.file is None and ABOUT_MODEL in names)


def _in_cache(address: hub.Address) -> tuple[Path, tuple[Path, ...]] | None:
    """Return the chosen file and all files of it, if the cache holds them whole."""
    snapshot = hub.find_cached(address)
    if snapshot is None:
        return None
    names = [path.name for path in snapshot.iterdir() if path.is_file()]
    name = address.file or _only(names)
    if name is None:  # the repository may hold others, so the hub must say which
        return None
    chosen = snapshot / name
    if not chosen.is_file():
        return None
    paths = _with_parts(chosen, lambda name: chosen.parent / name)
    return (chosen, paths) if all(path.is_file() for path in paths) else None


def _with_parts(chosen: Path, find: Callable[[str], Path]) -> tuple[Path, ...]:
    """Return the files to read: the chosen one, or those that it lists, as `find` returns them by name."""
    return tuple(find(name) for name in parts_of(chosen)) if chosen.name.endswith(INDEX) else (chosen,)


def _some(names: Collection[str]) -> str:
    shown: Sequence[str] = sorted(names)[:NUM_NAMED]
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(name if name.isprintable() else repr(name) for name in shown) + more
