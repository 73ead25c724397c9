"""The counts of each image of an evaluation, in `WORKDIR/image_counts`, under the name of the result that they belong to."""

import json
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from etils import epath
from pydantic import Field

from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.image_scores import DIGEST_DIGITS, ImageCounts, Lists, from_lists
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import remove_leftovers, write_atomically

FOLDER = "image_counts"
ADVICE = "evaluate the checkpoint again"

Digest = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{DIGEST_DIGITS}}}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class StoredImageCounts(documents.Document):
    """The content of a file: the classes, and of each image its digest and its counts; see `evaluation.image_scores.Lists`."""

    classes: list[str]
    images: list[tuple[Digest, list[tuple[Count, Count, Count, Count]]]]


class NamedCounts(NamedTuple):
    """The counts of each image of an evaluation, and the names of the classes."""

    classes: tuple[str, ...]
    images: ImageCounts


def path_of(result: epath.Path) -> epath.Path:
    """Return the path of the counts that belong to a result, given the path `WORKDIR/evaluation/NAME.json` of the result."""
    return result.parent.parent / FOLDER / result.name


def write_image_counts(result: epath.Path, classes: Sequence[str], images: Lists) -> None:
    """Write the counts that belong to a result.

    Raises:
      UserError: if the file cannot be written.
    """
    path = path_of(result)
    content = {"classes": list(classes), "images": images}
    try:
        path.parent.mkdir(exist_ok=True)
        remove_leftovers(path.parent)
        write_atomically(path, json.dumps(content, separators=(",", ":")) + "\n")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): make room or restore access, then repeat the evaluation"
        ) from error


def read_image_counts(result: epath.Path) -> NamedCounts:
    """Read the counts that belong to a result, given the path of the result.

    Raises:
      UserError: naming the file, if it is missing, as for results of earlier versions, or damaged.
    """
    path = path_of(result)
    stored = documents.read_json(path, StoredImageCounts, ADVICE)
    lists = [(digest, [list(row) for row in rows]) for digest, rows in stored.images]
    try:
        return NamedCounts(tuple(stored.classes), from_lists(lists, len(stored.classes)))
    except ValueError as error:
        raise UserError(f"{path}: {error}; {ADVICE}") from error
