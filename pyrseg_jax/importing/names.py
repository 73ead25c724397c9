"""Give each imported picture a file name of its own in the flat folders of the written data set."""

import collections
from collections.abc import Sequence
from pathlib import PurePosixPath

from pyrseg_jax.storage.names import comparable, file_name_of


def stems_of(names: Sequence[str]) -> list[str]:
    """Return a different stem for each picture: that of its file or, if several files have it, with the names of its folders.

    Args:
      names: paths of the pictures in their source.
    """
    paths = [PurePosixPath(name) for name in names]
    forms = (
        lambda path: path.stem,
        lambda path: "_".join([*path.parts[-2:-1], path.stem]),
        lambda path: "_".join([*path.parts[:-1], path.stem]).lstrip("/"),
        lambda path: "_".join([*path.parts[:-1], path.name.replace(".", "_")]),
    )
    stems = ["" for _ in paths]
    left = list(range(len(paths)))
    taken: set[str] = set()
    for form in forms:
        proposed = {i: _usable(form(paths[i])) for i in left}
        counts = collections.Counter(_key(stem) for stem in proposed.values())
        settled = [i for i in left if counts[_key(proposed[i])] == 1 and _key(proposed[i]) not in taken]
        for i in settled:
            stems[i] = proposed[i]
            taken.add(_key(stems[i]))
        left = [i for i in left if not stems[i]]
    for i in left:
        base, number = _usable(forms[-1](paths[i])), 2
        while _key(f"{base}_{number}") in taken:
            number += 1
        stems[i] = f"{base}_{number}"
        taken.add(_key(stems[i]))
    return stems


def _usable(stem: str) -> str:
    """Return a safe file name. A leading dot would hide the file, and data sets skip hidden files."""
    safe = file_name_of(stem.replace("/", "_"))
    return f"_{safe}" if safe.startswith(".") else safe


def _key(stem: str) -> str:
    return comparable(stem).casefold()  # some file systems do not tell letter cases apart
