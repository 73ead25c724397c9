"""Read label maps that other tools wrote: numbers, palette indices, or colors, exactly as the file stores them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16

from pyrseg_jax.data.images.image_formats import LABEL_FORMATS
from pyrseg_jax.data.images.label_samples import LABEL_MODES, check_label_file, stored_samples, with_palette
from pyrseg_jax.data.images.open_image import ACTION, load_image, open_image, recognize
from pyrseg_jax.errors import UserError, naming_file

ADVICE = "replace the mask or remove it with its picture"
NO_MEANING = 2**16 - 2  # in tables of `to_class_map`: a value that no class has
_COLOR_MODES = ("RGB", "RGBA")


class Mask(NamedTuple):
    """A decoded mask.

    values: the stored numbers (indices of a palette), or None for an image with colors.
    colors: the colors of the pixels, or None for numbers without a palette.
    """

    values: Shaped[np.ndarray, "h w"] | None
    colors: UInt8[np.ndarray, "h w 3"] | None


def read_mask(data: bytes, name: str) -> Mask:
    """Decode a mask.

    Raises:
      UserError: naming the file, if it cannot be decoded, is a JPEG, or has neither numbers nor colors of eight bits.
    """
    if data.startswith(b"\xff\xd8\xff"):
        raise UserError(f"{name} is a JPEG: its compression changes the values of a mask; export the masks as PNG")
    if recognize(data, name, LABEL_FORMATS) == "BMP":
        data = with_palette(data)
    image = open_image(data, name, LABEL_FORMATS)
    with naming_file(name, ACTION, ADVICE):
        if image.mode in LABEL_MODES:
            check_label_file(image, name, "one number per pixel")
            load_image(image, data, name)
            colors = np.asarray(image.convert("RGB")) if image.mode == "P" else None
            return Mask(stored_samples(image, data, name), colors)
        load_image(image, data, name)
        if image.mode not in _COLOR_MODES:
            raise UserError(
                f"{name} has the channels {image.mode}: expected numbers, a palette, or the colors of classes (RGB)"
            )
        return Mask(None, np.asarray(image.convert("RGB")))


def to_class_map(
    values: Shaped[np.ndarray, "h w"], table: UInt16[np.ndarray, " n"], name: str
) -> UInt16[np.ndarray, "h w"]:
    """Look up the values of a mask.

    Args:
      values: the stored numbers.
      table: value of the mask → value in class maps. `NO_MEANING` marks values that no class has.
      name: the file, for messages.

    Raises:
      UserError: naming the file, the first value without a meaning, and its pixel.
    """
    inside = np.clip(values, 0, len(table) - 1)
    found = table[inside]
    is_wrong = (found == NO_MEANING) | (inside != values)
    if is_wrong.any():
        row, column = np.argwhere(is_wrong)[0]
        value = values[row, column]
        known = np.flatnonzero(table != NO_MEANING)
        raise UserError(
            f"{name}: the value {value} at row {row}, column {column} ({int((values == value).sum())} pixels of it) is not in the "
            f"list of classes: its values are {describe_values(known)}"
        )
    return found


def describe_values(values: np.ndarray) -> str:
    """Describe a sorted list of numbers, for messages."""
    if len(values) > 1 and values[-1] - values[0] + 1 == len(values):
        return f"{values[0]} … {values[-1]}"
    return ", ".join(map(str, values[:12])) + (", …" if len(values) > 12 else "")
