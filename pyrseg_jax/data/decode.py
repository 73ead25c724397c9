"""Decode the bytes of image and label files to arrays. Errors name the file and say what is wrong with it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer, Real, UInt, UInt8
from PIL import Image

from pyrseg_jax.data.image_space import PHOTOGRAPH, ImageSpace
from pyrseg_jax.data.images.fast_decode import decode_gray_png, decode_upright_jpeg
from pyrseg_jax.data.images.image_formats import IMAGE_FORMATS, LABEL_FORMATS
from pyrseg_jax.data.images.label_samples import check_label_file, stored_samples, with_palette
from pyrseg_jax.data.images.open_image import ACTION, ADVICE, load_image, open_image, recognize
from pyrseg_jax.data.images.orientation import (
    UPRIGHT,
    find_orientation,
    orientation_of,
    orientation_of_image,
    size_when_turned,
    turned,
)
from pyrseg_jax.data.images.photograph import say_once, to_array
from pyrseg_jax.data.images.planes import read_planes
from pyrseg_jax.data.images.whole_photograph import open_photograph
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.source import Record
from pyrseg_jax.errors import UserError, naming_file


class Masked(NamedTuple):
    """An image and which of its pixels have no data.

    image: (H, W, C), as in `Pair`.
    is_void: (H, W) whether a pixel has no data in any channel; None: every pixel has data.
    """

    image: Real[np.ndarray, "h w c"]
    is_void: Bool[np.ndarray, "h w"] | None


class Pair(NamedTuple):
    """An image with its label map, ready for augmentation.

    image: RGB, (H, W, 3) uint8; or (H, W, C) of the type of its `ImageSpace`.
    label: train ids, (H, W) uint8, and 255 is void; or uint16, and 65535 is void, where there are more than 255 classes.
    """

    image: Real[np.ndarray, "h w c"]
    label: UInt[np.ndarray, "h w"]


def decode_pair(record: Record, label_space: LabelSpace) -> Pair:
    """Decode one image with its label map.

    A photograph that a camera stored rotated (EXIF orientation) is turned upright, unless its label map fits only the pixels as
    they are stored. Pixels without data are void, where the record's `image_space` says what they are.

    Raises:
      UserError: naming the file, if it cannot be decoded, if the label map has several channels or a value without a class, or if
        the image and its label map differ in size.
    """
    label = decode_label(record["label"], record["label_name"], label_space)
    data, name, space = record["image"], record["image_name"], record.get("image_space", PHOTOGRAPH)
    if not space.is_photograph:
        image, is_void = decode_masked(data, name, space)
        if image.shape[:2] != label.shape:
            raise _misfit(record, image.shape[1::-1], label.shape[::-1])
        return Pair(
            image, label if is_void is None else np.where(is_void, label_space.dtype.type(label_space.void), label)
        )
    plain = decode_upright_jpeg(data)
    if plain is not None and plain.shape[:2] == label.shape:
        return Pair(plain, label)
    stored = open_photograph(data, name)
    with naming_file(name, ACTION, ADVICE):
        orientation, expected = _orientation(data, name), label.shape[::-1]
        size = size_when_turned(stored.size, orientation)
        if size != expected == stored.size:
            orientation, size = UPRIGHT, stored.size
        if size != expected:
            raise _misfit(record, size, expected)
        return Pair(turned(to_array(stored, name), orientation), label)


def _misfit(record: Record, size: tuple[int, ...], expected: tuple[int, ...]) -> UserError:
    return UserError(
        f"{record['image_name']} is {size[0]} × {size[1]} pixels, but its label {record['label_name']} "
        f"is {expected[0]} × {expected[1]} (width × height): both must have the same size; never resize only one of them"
    )


def decode_masked(data: bytes, name: str, space: ImageSpace) -> Masked:
    """Decode an image of any number of channels, upright, to values of 0 … 255, and find its pixels without data.

    Args:
      data: the file.
      name: the file, for messages.
      space: what its values mean.

    Raises:
      UserError: naming the file, if it cannot be decoded, or does not hold such values.
    """
    if space.is_photograph:
        return Masked(decode_image(data, name), None)
    image, is_void = masked_planes(*read_planes(data, name), name, space)
    with naming_file(name, ACTION, ADVICE):
        orientation = _orientation(data, name)
        return Masked(
            turned(image, orientation), None if is_void is None else turned(is_void[..., None], orientation)[..., 0]
        )


def masked_planes(
    values: Real[np.ndarray, "h w c"], is_missing: Bool[np.ndarray, "h w c"] | None, name: str, space: ImageSpace
) -> Masked:
    """Scale the values of a file, or of some of its rows.

    Args:
      values: as the file stores them.
      is_missing: which of them the file itself calls missing; None: it calls none so.
      name: the file, for messages.
      space: what its values mean.

    Raises:
      UserError: naming the file, if images cannot have these values.
    """
    space.check_type(values, name)
    with naming_file(name, ACTION, ADVICE):
        found = space.find_missing(values)
        if is_missing is None or found is None:
            is_missing = found if is_missing is None else is_missing
        else:
            is_missing = is_missing | found
        return Masked(*space.to_image(values, is_missing))


def decode_image(data: bytes, name: str, space: ImageSpace = PHOTOGRAPH) -> Real[np.ndarray, "h w c"]:
    """Decode any photograph to upright RGB: convert grayscale and CMYK, and put a white background behind transparency.

    Args:
      data: the file.
      name: the file, for messages.
      space: what its values mean, if it is not a photograph; see `decode_masked`.

    Raises:
      UserError: naming the file, if it is not an image or is damaged.
    """
    if not space.is_photograph:
        return decode_masked(data, name, space).image
    plain = decode_upright_jpeg(data)
    if plain is not None:
        return plain
    stored = open_photograph(data, name)
    with naming_file(name, ACTION, ADVICE):
        return turned(to_array(stored, name), _orientation(data, name))


def to_rgb(image: Image.Image, name: str = "the image") -> UInt8[np.ndarray, "h w 3"]:
    """Convert a PIL image to upright RGB, as `decode_image` does with a file."""
    with naming_file(name, ACTION, ADVICE):
        return turned(to_array(image, name), orientation_of_image(image))


def decode_label(data: bytes, name: str, label_space: LabelSpace) -> UInt[np.ndarray, "h w"]:
    """Decode a label file to train ids; raises UserError as `decode_pair` does.

    The values are those that the file stores, whatever its bit depth and colors. They are not turned by an orientation.
    """
    return label_space.to_train_ids(decode_label_values(data, name, label_space.describe_file_ids()), name)


def decode_label_values(data: bytes, name: str, expected: str) -> Integer[np.ndarray, "h w"]:
    """Decode a label file to the values that it stores; `expected`: the values that it may hold, in words, for messages."""
    plain = decode_gray_png(data)
    if plain is not None:
        return plain
    if data.startswith(b"\xff\xd8\xff"):
        raise UserError(f"{name} is a JPEG: its compression changes label values; store label maps as PNG")
    if recognize(data, name, LABEL_FORMATS) == "BMP":
        data = with_palette(data)
    image = open_image(data, name, LABEL_FORMATS)
    with naming_file(name, ACTION, ADVICE):
        check_label_file(image, name, expected)
        load_image(image, data, name)
        if find_orientation(data) != UPRIGHT:
            say_once(name, "names an EXIF orientation: label maps are read as they are stored")
        return stored_samples(image, data, name)


def size_of(data: bytes, name: str) -> tuple[int, int]:
    """Read (height, width) of the upright image from the file's header, without decoding pixels."""
    width, height = size_when_turned(open_image(data, name, IMAGE_FORMATS).size, orientation_of(data))
    return height, width


def _orientation(data: bytes, name: str) -> int:
    orientation = find_orientation(data)
    if orientation is None:
        say_once(name, "names an EXIF orientation that cannot be understood: its pixels are used as they are stored")
    return orientation or UPRIGHT
