"""Decode the bytes of image and label files to arrays. Errors name the file and say what is wrong with it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pyrseg_jax.data.images.fast_decode import decode_gray_png, decode_upright_jpeg
from pyrseg_jax.data.images.image_formats import IMAGE_FORMATS, LABEL_FORMATS
from pyrseg_jax.data.images.jpeg_header import read_jpeg_header
from pyrseg_jax.data.images.jpeg_scan import ends_early, has_end, may_end_early
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
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.source import Record
from pyrseg_jax.errors import UserError, naming_file


class Pair(NamedTuple):
    """An image with its label map, ready for augmentation.

    image: RGB, (H, W, 3) uint8.
    label: train ids, (H, W) uint8; 255 is void.
    """

    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]


def decode_pair(record: Record, label_space: LabelSpace) -> Pair:
    """Decode one image with its label map.

    A photograph that a camera stored rotated (EXIF orientation) is turned upright, unless its label map fits only the pixels as
    they are stored.

    Raises:
      UserError: naming the file, if it cannot be decoded, if the label map has several channels or a value without a class, or if
        the image and its label map differ in size.
    """
    label = decode_label(record["label"], record["label_name"], label_space)
    data, name = record["image"], record["image_name"]
    plain = decode_upright_jpeg(data)
    if plain is not None and plain.shape[:2] == label.shape:
        return Pair(plain, label)
    stored = _open_photograph(data, name)
    with naming_file(name, ACTION, ADVICE):
        orientation, expected = _orientation(data, name), label.shape[::-1]
        size = size_when_turned(stored.size, orientation)
        if size != expected == stored.size:
            orientation, size = UPRIGHT, stored.size
        if size != expected:
            raise UserError(
                f"{name} is {size[0]} × {size[1]} pixels, but its label {record['label_name']} "
                f"is {expected[0]} × {expected[1]} (width × height): both must have the same size; never resize only one of them"
            )
        return Pair(turned(to_array(stored, name), orientation), label)


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode any photograph to upright RGB: convert grayscale and CMYK, and put a white background behind transparency.

    Raises:
      UserError: naming the file, if it is not an image or is damaged.
    """
    plain = decode_upright_jpeg(data)
    if plain is not None:
        return plain
    stored = _open_photograph(data, name)
    with naming_file(name, ACTION, ADVICE):
        return turned(to_array(stored, name), _orientation(data, name))


def to_rgb(image: Image.Image, name: str = "the image") -> UInt8[np.ndarray, "h w 3"]:
    """Convert a PIL image to upright RGB, as `decode_image` does with a file."""
    with naming_file(name, ACTION, ADVICE):
        return turned(to_array(image, name), orientation_of_image(image))


def decode_label(data: bytes, name: str, label_space: LabelSpace) -> UInt8[np.ndarray, "h w"]:
    """Decode a label file to train ids; raises UserError as `decode_pair` does.

    The values are those that the file stores, whatever its bit depth and colors. They are not turned by an orientation.
    """
    plain = decode_gray_png(data)
    if plain is not None:
        return label_space.to_train_ids(plain, name)
    if data.startswith(b"\xff\xd8\xff"):
        raise UserError(f"{name} is a JPEG: its compression changes label values; store label maps as PNG")
    if recognize(data, name, LABEL_FORMATS) == "BMP":
        data = with_palette(data)
    image = open_image(data, name, LABEL_FORMATS)
    with naming_file(name, ACTION, ADVICE):
        check_label_file(image, name, label_space.describe_file_ids())
        load_image(image, data, name)
        if find_orientation(data) != UPRIGHT:
            say_once(name, "names an EXIF orientation: label maps are read as they are stored")
        return label_space.to_train_ids(stored_samples(image, data, name), name)


def size_of(data: bytes, name: str) -> tuple[int, int]:
    """Read (height, width) of the upright image from the file's header, without decoding pixels."""
    width, height = size_when_turned(open_image(data, name, IMAGE_FORMATS).size, orientation_of(data))
    return height, width


def _open_photograph(data: bytes, name: str) -> Image.Image:
    image = open_image(data, name, IMAGE_FORMATS)
    load_image(image, data, name)
    with naming_file(name, ACTION, ADVICE):
        if image.format == "JPEG":
            _check_complete(image, data, name)
        if getattr(image, "n_frames", 1) > 1:
            say_once(name, f"holds {getattr(image, 'n_frames', 1)} pictures: only the first is used")
    return image


def _check_complete(image: Image.Image, data: bytes, name: str) -> None:
    header = read_jpeg_header(data)
    if header is None:
        return
    pixels = np.asarray(image)
    if not has_end(data, header.scan_start):
        raise UserError(f"{name} is cut off (it has no end-of-image marker): {ADVICE}")
    if may_end_early(pixels) and ends_early(data, header.scan_start, pixels, _pixels_of_jpeg):
        raise UserError(f"{name} is cut off (its image data ends before the last pixel): {ADVICE}")


def _pixels_of_jpeg(data: bytes) -> np.ndarray:
    image = open_image(data, "", IMAGE_FORMATS)
    load_image(image, data, "")
    return np.asarray(image)


def _orientation(data: bytes, name: str) -> int:
    orientation = find_orientation(data)
    if orientation is None:
        say_once(name, "names an EXIF orientation that cannot be understood: its pixels are used as they are stored")
    return orientation or UPRIGHT
