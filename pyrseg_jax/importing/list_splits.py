"""Read the splits of photographs and plain masks from lists of their names, such as `train.txt` and `val.txt`."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pyrseg_jax.data.images.image_formats import IMAGE_SUFFIXES
from pyrseg_jax.data.listing import suffix_of
from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path, split_of_word
from pyrseg_jax.storage.names import comparable


def listed_splits(tree: SourceTree) -> dict[str, str]:
    """Return the splits of the files that lists such as `train.txt` and `val.txt` name, by their paths without suffixes.

    A line holds a photograph, and maybe its mask after it.

    Raises:
      UserError: if two lists name a file for different splits.
    """
    found: dict[str, str] = {}
    for file in tree.annotation_files(".txt"):
        split = split_of_word(PurePosixPath(file).stem)
        if split is None or PurePosixPath(file).stem.lower() == "trainval":
            continue
        for number, line in enumerate(tree.text(file).splitlines(), 1):
            words = line.replace("\\", "/").split()
            for word in words[:1] + [word for word in words[1:2] if suffix_of(word) in IMAGE_SUFFIXES]:
                path = _plain_path(word)
                if found.setdefault(path, split) != split:
                    raise UserError(
                        f"{tree.place(file)}, line {number} lists {word} for {split}, but another list names it for {found[path]}: "
                        "a picture belongs to one split"
                    )
    return found


def _plain_path(path: str) -> str:
    plain = PurePosixPath(comparable(path).lstrip("./"))
    return str(plain.with_suffix("") if plain.suffix.lower() in IMAGE_SUFFIXES else plain)


def split_of_pair(names: Sequence[str], listed: Mapping[str, str]) -> str | None:
    """Return the split of the files of a pair, by the lists that `listed_splits` read, or else by their folders."""
    for name in names:
        parts = _plain_path(name).split("/")
        tails = ("/".join(parts[i:]) for i in range(len(parts)))
        if found := next((listed[tail] for tail in tails if tail in listed), None):
            return found
    return next(filter(None, (split_of_path(str(PurePosixPath(name).parent)) for name in names)), None)
