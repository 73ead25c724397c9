"""Which classes an image shows, as a short text: one bit per class, in hexadecimal digits."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool


def pack_classes(is_shown: Bool[np.ndarray, "c"]) -> str:
    """Return the text of an image; the lowest bit of the first byte is class 0."""
    return np.packbits(is_shown, bitorder="little").tobytes().hex()


def num_digits(num_classes: int) -> int:
    """Return the length of the texts for so many classes."""
    return 2 * -(-num_classes // 8)


def images_of_classes(contents: Sequence[tuple[int, str]], num_classes: int) -> list[np.ndarray]:
    """Return, for each class, the indices of the images that show it, in ascending order.

    Args:
      contents: (index in the split, text) of each image, in any order.
      num_classes: C.
    """
    ordered = sorted(contents)
    packed = np.frombuffer(bytes.fromhex("".join(text for _, text in ordered)), np.uint8)
    packed = packed.reshape(len(ordered), num_digits(num_classes) // 2)
    is_shown = np.unpackbits(packed, axis=1, bitorder="little")[:, :num_classes]
    indices = np.array([index for index, _ in ordered], np.int32)
    return [indices[column > 0] for column in is_shown.T]
