"""Collect objects by picture, for the formats that describe objects instead of pixels."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt16

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BACKGROUND, Notes, Options, Picture
from pyrseg_jax.importing.objects import Object, paint_objects
from pyrseg_jax.importing.source_tree import SourceTree

EMPTY = "picture without annotations"


class ObjectPicture:
    """A picture to which objects are added.

    Args:
      name: its path in the source.
      image: see `annotations.Picture`.
      split: see `annotations.Picture`.
      size: (height, width) that its annotations are for, or None where the format does not say.
      place: where it is annotated, for messages.
    """

    def __init__(
        self,
        name: str,
        image: Path | Callable[[], bytes],
        split: str | None,
        size: tuple[int, int] | None = None,
        place: str = "",
    ):
        self.name, self.image, self.split, self.size, self.place = name, image, split, size, place
        self.objects: list[Object] = []
        self.error: UserError | None = None

    def finish(self, order: str) -> Picture:
        """Return the picture, whose objects are painted in an order of `objects.paint_objects`."""
        return Picture(self.name, self.image, self.split, functools.partial(self._paint, order))

    def _paint(self, order: str, height: int, width: int) -> UInt16[np.ndarray, "h w"]:
        if self.error is not None:
            raise self.error
        return paint_objects(self.objects, order, *(self.size or (height, width)))


def finish_all(
    pictures: list[ObjectPicture], options: Options, unlabeled: str, overlap: str, notes: Notes
) -> tuple[Picture, ...]:
    """Finish the pictures. One without objects is kept only if its unlabeled pixels become background.

    A photograph that two of them annotate is an error of the second, because their label maps differ.

    Args:
      pictures: the pictures.
      options: the user's options.
      unlabeled, overlap: the defaults of the format.
      notes: where pictures that are left out are counted.
    """
    is_background = (options.unlabeled or unlabeled) == BACKGROUND
    kept, places = [], {}
    for picture in pictures:
        first = places.setdefault(picture.image, picture.place)
        if first != picture.place:
            picture.error = picture.error or UserError(
                f"{picture.place} annotates {picture.name}, and so does {first}: keep one of them, or name one file with --input"
            )
        if picture.objects or picture.error is not None or is_background:
            kept.append(picture.finish(options.overlap or overlap))
        else:
            notes.add(EMPTY, picture.name)
    return tuple(kept)


def image_or_error(tree: SourceTree, name: str | None, wanted: str, place: str) -> Path | Callable[[], bytes]:
    """Return the file of an image, or a function that raises the error that it is missing.

    Args:
      tree: the files.
      name: path of the image that was found, or None.
      wanted: the image that the annotations name.
      place: where they name it.
    """
    if name is not None:
        return tree.root / name

    def fail() -> bytes:
        raise tree.missing_image(wanted, place)

    return fail
