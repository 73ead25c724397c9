"""Find pictures that are nearly the same: copies in another size or quality, and neighboring frames of a video.

Each picture is reduced to 16 × 16 gray values. The signs of the differences between neighbors, on a still coarser grid, form a
hash of 64 bits (a "difference hash"), which changes of size, quality, or brightness hardly affect. Pairs with similar hashes are
then compared by their gray values.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Integer, UInt8

from pyrseg_jax.data.decode import decode_image
from pyrseg_jax.data.images.image_formats import IMAGE_FORMATS
from pyrseg_jax.data.images.open_image import load_image, open_image
from pyrseg_jax.data.resample import resize_image

SIDE = 16
MAX_BITS = 6  # of 64 that may differ
MAX_DIFFERENCE = 8.0  # mean absolute difference of the 16 × 16 gray values, of 255
_BLOCK = 1024  # hashes that are compared with all others at a time
_ENOUGH = 64  # pixels: a JPEG is decoded at an eighth of its size if that leaves so many per side


class NearPair(NamedTuple):
    """Two pictures, by their indices, and how far their gray values are apart, of 255."""

    first: int
    second: int
    difference: float


def thumbnail(data: bytes, name: str) -> UInt8[np.ndarray, "16 16"]:
    """Decode a picture, a JPEG in less detail and so faster, to 16 × 16 gray values.

    Raises:
      UserError: naming the file, if it is not an image or is damaged.
    """
    if data.startswith(b"\xff\xd8\xff"):
        image = open_image(data, name, IMAGE_FORMATS)
        image.draft("L", (_ENOUGH, _ENOUGH))
        load_image(image, data, name)
        gray = np.asarray(image.convert("L"))
    else:
        gray = cv2.cvtColor(decode_image(data, name), cv2.COLOR_RGB2GRAY)
    return resize_image(gray[..., None], (SIDE, SIDE))[..., 0]


def hashes_of(thumbnails: UInt8[np.ndarray, "n 16 16"]) -> Integer[np.ndarray, " n"]:
    """Return the difference hash of each picture, 64 bits."""
    coarse = thumbnails.reshape(-1, 8, 2, 8, 2).mean((2, 4))
    wrapped = np.concatenate([coarse, coarse[:, :, :1]], 2)  # the last column is compared with the first
    bits = (wrapped[:, :, 1:] > wrapped[:, :, :-1]).reshape(-1, 64)
    return np.packbits(bits, 1).view(np.uint64).reshape(-1)


def find_near_pairs(
    first: UInt8[np.ndarray, "n 16 16"], second: UInt8[np.ndarray, "m 16 16"], most: int = 1000
) -> list[NearPair]:
    """For each picture of `second`, return the nearest one of `first` if both are nearly the same. The nearest pairs come first.

    Args:
      first, second: thumbnails.
      most: number of pairs at which the search ends.
    """
    if not len(first) or not len(second):
        return []
    known, pairs = hashes_of(first), []
    asked = hashes_of(second)
    block = max(1, _BLOCK * 1024 // max(len(first), 1))
    for start in range(0, len(asked), block):
        distance = np.bitwise_count(asked[start : start + block, None] ^ known[None])
        rows, columns = np.nonzero(distance <= MAX_BITS)
        if not rows.size:
            continue
        differences = np.abs(second[start + rows].astype(np.int16) - first[columns]).mean((1, 2))
        for row in np.unique(rows):
            here = np.flatnonzero(rows == row)
            best = here[differences[here].argmin()]
            if differences[best] <= MAX_DIFFERENCE:
                pairs.append(NearPair(int(columns[best]), int(start + row), float(differences[best])))
        if len(pairs) >= most:
            break
    return sorted(pairs, key=lambda pair: (pair.difference, pair.second))
