"""Tell damaged annotations, which are an error, from damaged files that have nothing to do with them."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import Notes
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path

OTHER_KIND = "JSON file of another kind"
UNREADABLE = "JSON file that cannot be read, and does not look like annotations"
_NAMES = r"annotation|instances|panoptic|stuff|coco|labels|project|result"  # of files of annotations


def read_json_or_pass(tree: SourceTree, name: str, keys: Sequence[str], notes: Notes) -> Any:
    """Read a JSON file that may hold annotations; return None, after counting it, if it is empty or damaged and holds none.

    Args:
      tree: the files.
      name: the file.
      keys: keys of the format, any of which in the text of a damaged file tells that it holds annotations.
      notes: where files that are passed over are counted.

    Raises:
      UserError: naming the file, if it is damaged, and has one of the keys, is named like annotations, a split or an image of the
        source, or is the only file.
    """
    try:
        document = tree.json(name)
    except UserError as error:
        if tree.focus is not None or _is_named_like_annotations(tree, name) or _has_key(tree.read(name), keys):
            raise
        notes.add(UNREADABLE, str(error))
        return None
    if document is None:
        notes.add(OTHER_KIND, tree.place(name))
    return document


def _is_named_like_annotations(tree: SourceTree, name: str) -> bool:
    path = PurePosixPath(name)
    if re.search(_NAMES, name, re.IGNORECASE) or split_of_path(str(path.with_suffix(""))) is not None:
        return True
    return any(PurePosixPath(image).stem == path.stem for image in tree.images())


def _has_key(data: bytes, keys: Sequence[str]) -> bool:
    return any(f'"{key}"'.encode() in data for key in keys)
