"""Decode the bytes of image and label files to arrays, with an error that names the file for everything unusual."""

import io
import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from pyrseg_jax.data.fast_decode import ORIENTATION_TAG, decode_gray_png, decode_upright_jpeg, is_gray_png
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.source import Record
from pyrseg_jax.errors import UserError

# PIL's modes with one number per pixel. A palette image ("P") holds indices: these are the labels, its colors are for viewers.
LABEL_MODES = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L"}


class Pair(NamedTuple):
    """An image with its label map, ready for augmentation.

    image: (H, W, 3) uint8, RGB.
    label: (H, W) uint8 train ids, 255 = void.
    """

    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]


def decode_pair(record: Record, label_space: LabelSpace) -> Pair:
    """Decode one image with its label map.

    A photograph that a camera stored rotated (EXIF orientation) is turned upright, unless its label map fits only the pixels as
    they are stored.

    Raises:
      UserError: naming the file, if it cannot be decoded, if the label map has several channels or a value that no class has, or
        if image and label map differ in size.
    """
    label = decode_label(record["label"], record["label_name"], label_space)
    plain = decode_upright_jpeg(record["image"])
    if plain is not None and plain.shape[:2] == label.shape:
        return Pair(plain, label)
    stored = _open(record["image"], record["image_name"])
    upright = _turn_upright(stored)
    expected = label.shape[::-1]
    image = upright if upright.size == expected or stored.size != expected else stored
    if image.size != expected:
        raise UserError(
            f"{record['image_name']} is {image.size[0]} × {image.size[1]} pixels, but its label {record['label_name']} "
            f"is {expected[0]} × {expected[1]} (width × height): both must have the same size; never resize one alone"
        )
    return Pair(_to_array(image), label)


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode any photograph to upright RGB: gray is expanded, CMYK converted, and transparency put on white.

    Raises:
      UserError: naming the file, if it is not an image or a damaged one.
    """
    plain = decode_upright_jpeg(data)
    return plain if plain is not None else to_rgb(_open(data, name))


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Convert a PIL image to upright RGB, as `decode_image` does with a file."""
    return _to_array(_turn_upright(image))


def decode_label(data: bytes, name: str, label_space: LabelSpace) -> UInt8[np.ndarray, "h w"]:
    """Decode a label file to train ids; raises UserError as `decode_pair` does."""
    plain = decode_gray_png(data)
    if plain is not None:
        return label_space.to_train_ids(plain, name)
    image = _open(data, name)
    if image.format == "JPEG":
        raise UserError(f"{name} is a JPEG: its compression changes label values; store label maps as PNG")
    if image.mode not in LABEL_MODES:
        raise UserError(
            f"{name} has the channels {image.mode} ({len(image.getbands())} numbers per pixel): a label map has one, the "
            f"number of the class, {label_space.describe_file_ids()}; convert its colors to class numbers"
        )
    if is_gray_png(data):  # OpenCV refused it, but PIL did not: PIL ignores wrong checksums
        raise UserError(
            f"{name} is damaged (a checksum in it is wrong): replace the file or remove it from the data set"
        )
    return label_space.to_train_ids(_as_numbers(image), name)


def size_of(data: bytes, name: str) -> tuple[int, int]:
    """Read the (height, width) of the upright image from the file's header, without decoding any pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data))
        except Exception as error:
            raise _undecodable(name, data, error) from error
    width, height = image.size
    # Orientations 5 … 8 of the EXIF standard exchange rows and columns.
    is_rotated = image.getexif().get(ORIENTATION_TAG, 1) in (5, 6, 7, 8)
    return (width, height) if is_rotated else (height, width)


def _turn_upright(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    assert upright is not None  # only an in-place transposition returns None
    return upright


def _open(data: bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # PIL warns about unusual metadata, which does not matter here, and about images above half of its size limit.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            image.load()
    # PIL raises OSError, SyntaxError, ValueError, struct.error … depending on the format. In every case the file is at fault.
    except Exception as error:
        raise _undecodable(name, data, error) from error
    return image


def _undecodable(name: str, data: bytes, error: Exception) -> UserError:
    if not data:
        reason = "it is empty"
    elif isinstance(error, UnidentifiedImageError):  # its own text names an object in memory
        reason = f"it begins with {data[:8]!r}, as no image format does"
    else:
        reason = f"{type(error).__name__}: {str(error).replace(chr(10), ' ')}"
    return UserError(
        f"{name} cannot be decoded as an image ({reason}): replace the file or remove it from the data set"
    )


def _as_numbers(image: Image.Image) -> Shaped[np.ndarray, "h w"]:
    array = np.asarray(image)
    return array.astype(np.uint8) if array.dtype == bool else array


def _to_array(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):  # PIL clips these to 0 … 255 instead of scaling them
        array = np.asarray(image, np.float64)
        top = 65535 if image.mode != "F" else max(float(array.max(initial=0)), 1.0)
        gray = np.clip(array / top * 255, 0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return np.asarray(image.convert("RGB"))
