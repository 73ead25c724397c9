"""Write one imported picture and its label map as a pair of the folder layout."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Int64, UInt8, UInt16

from pyrseg_jax.data.decode import size_of
from pyrseg_jax.data.images.image_formats import IMAGE_FORMATS, SUFFIXES
from pyrseg_jax.data.images.open_image import open_image, recognize
from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import Picture
from pyrseg_jax.importing.near_duplicates import thumbnail
from pyrseg_jax.storage.regular_file import read_regular_file, unreadable

MAX_OF_8_BITS = 255
LINKED, COPIED, EXTRACTED = "linked", "copied", "extracted"


class Pair(NamedTuple):
    """What is known of a written pair.

    pixels: number of pixels of each value of the source's class map.
    thumbnail: the picture, 16 × 16 gray values.
    how: how the picture got there: `LINKED`, `COPIED`, or `EXTRACTED` from another file.
    """

    pixels: Int64[np.ndarray, " values"]
    thumbnail: UInt8[np.ndarray, "16 16"]
    how: str


def write_pair(
    picture: Picture, stem: str, split: str, folder: Path, table: UInt16[np.ndarray, " values"], is_copying: bool
) -> Pair:
    """Write a picture, unchanged, and its label map.

    Args:
      picture: the picture; its class map is painted here.
      stem: its new name, without a suffix.
      split: its split.
      folder: the data set, whose folders exist.
      table: value of a class map → value in label files; see `legend.Legend`.
      is_copying: whether to copy the file instead of linking it.

    Raises:
      UserError: naming the picture, if it or its annotations cannot be used.
      OSError: if the disk does not take the files.
    """
    data = _bytes_of(picture)
    height, width = size_of(data, picture.name)
    class_map = picture.paint(height, width)
    _check_size(class_map, (height, width), data, picture.name)
    class_map = np.minimum(class_map, len(table) - 1)  # `IGNORED` becomes the last item
    small = thumbnail(data, picture.name)
    name = f"{stem}{_suffix(picture, data)}"
    how = _place(picture, data, folder / "images" / split / name, is_copying)
    write_label_map(
        folder / "annotations" / split / f"{stem}.png", table[class_map], is_wide=int(table.max()) > MAX_OF_8_BITS
    )
    pixels = np.bincount(class_map.reshape(-1), minlength=len(table)).astype(np.int64)
    return Pair(pixels, small, how)


def write_label_map(path: Path, values: UInt16[np.ndarray, "h w"], is_wide: bool) -> None:
    """Write a label map as a gray PNG of 8 bits, or of 16 bits where there are more classes."""
    _, data = cv2.imencode(".png", values if is_wide else values.astype(np.uint8))
    path.write_bytes(data.tobytes())


def _bytes_of(picture: Picture) -> bytes:
    if not isinstance(picture.image, Path):
        return picture.image()
    try:
        return read_regular_file(picture.image)
    except (OSError, MemoryError) as error:
        raise unreadable(picture.image, error) from error


def _check_size(class_map: np.ndarray, upright: tuple[int, int], data: bytes, name: str) -> None:
    """Check that annotations are as large as their picture, upright or as it is stored."""
    if class_map.shape == upright:
        return
    stored = open_image(data, name, IMAGE_FORMATS).size[::-1]
    if class_map.shape != stored:
        raise UserError(
            f"{name} is {upright[1]} × {upright[0]} pixels, but its annotations are for {class_map.shape[1]} × "
            f"{class_map.shape[0]} (width × height): use the photographs that were annotated, in their size"
        )


def _suffix(picture: Picture, data: bytes) -> str:
    """Return the suffix of the file if it fits what the file is, or else the usual one."""
    known = SUFFIXES[recognize(data, picture.name, IMAGE_FORMATS)]
    suffix = Path(picture.name).suffix
    return suffix if suffix.lower() in known else known[0]


def _place(picture: Picture, data: bytes, path: Path, is_copying: bool) -> str:
    if not isinstance(picture.image, Path):
        path.write_bytes(data)
        return EXTRACTED
    if not is_copying:
        with contextlib.suppress(OSError):  # another disk, or one without links
            os.link(os.path.realpath(picture.image), path)
            return LINKED
    shutil.copyfile(picture.image, path)
    return COPIED


def in_order(function: Callable[[int], Pair], count: int, workers: int):
    """Yield (index, result or UserError) of calls in several threads, in order, with a bounded number of calls ahead."""
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = {}
        ahead = 4 * workers
        try:
            for i in range(count + ahead):
                if i < count:
                    futures[i] = pool.submit(function, i)
                if (done := i - ahead) >= 0 and done in futures:
                    future = futures.pop(done)
                    try:
                        result = future.result()
                    except UserError as error:
                        result = error
                    yield done, result
        finally:
            for future in futures.values():
                future.cancel()
