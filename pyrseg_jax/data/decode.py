"""Decode the bytes of image and label files to arrays. Errors name the file and say what is wrong with it."""

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

# PIL's modes with one number per pixel. The indices of a palette image ("P") are the labels; its colors are only for display.
LABEL_MODES = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L"}


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
            f"is {expected[0]} × {expected[1]} (width × height): both must have the same size; never resize only one of them"
        )
    return Pair(_to_array(image), label)


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode any photograph to upright RGB: convert grayscale and CMYK, and put a white background behind transparency.

    Raises:
      UserError: naming the file, if it is not an image or is damaged.
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
            f"class value, {label_space.describe_file_ids()}; convert its colors to class values"
        )
    if is_gray_png(data):  # OpenCV rejects wrong checksums, and PIL ignores them
        raise UserError(f"{name} is damaged (a checksum is wrong): replace the file or remove it from the data set")
    return label_space.to_train_ids(_as_numbers(image), name)


def size_of(data: bytes, name: str) -> tuple[int, int]:
    """Read (height, width) of the upright image from the file's header, without decoding pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data))
        except Exception as error:
            raise _undecodable(name, data, error) from error
    width, height = image.size
    # The EXIF orientations 5 … 8 swap rows and columns.
    is_rotated = image.getexif().get(ORIENTATION_TAG, 1) in (5, 6, 7, 8)
    return (width, height) if is_rotated else (height, width)


def _turn_upright(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    assert upright is not None  # only an in-place transposition returns None
    return upright


def _open(data: bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # PIL warns about unusual metadata, which is not used here, and about images above half its size limit.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            image.load()
    # PIL raises OSError, SyntaxError, ValueError, struct.error and others, depending on the format. Each means a bad file.
    except Exception as error:
        raise _undecodable(name, data, error) from error
    return image


def _undecodable(name: str, data: bytes, error: Exception) -> UserError:
    if not data:
        reason = "it is empty"
    elif isinstance(error, UnidentifiedImageError):  # the error's own text shows the address of a Python object
        reason = f"it begins with {data[:8]!r}, which is not the start of a known image format"
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
