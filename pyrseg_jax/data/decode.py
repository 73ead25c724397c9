"""From the bytes of an image or label file to an array, with an error that names the file for everything odd."""

import io
import warnings
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.source import Record
from pyrseg_jax.errors import UserError

# Modes that hold one number per pixel. A palette image holds indices: these are the labels, the colours are for viewers.
LABEL_MODES = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L"}


class Pair(NamedTuple):
    """An image with its label map, ready for augmentation.

    image: (H, W, 3) uint8, RGB.
    label: (H, W) uint8 train ids, 255 = void.
    """

    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]


def decode_pair(record: Record, label_space: LabelSpace) -> Pair:
    """Decode what a source holds for one image.

    A photograph that a camera stored rotated (EXIF orientation) is turned upright, unless its label fits only the
    pixels as they are stored.

    Raises:
      UserError: naming the file, if one cannot be decoded, the label has several channels or a value that no class has,
        or the two differ in size.
    """
    label = decode_label(record["label"], record["label_name"], label_space)
    plain = _decode_plain_jpeg(record["image"])
    if plain is not None and plain.shape[:2] == label.shape:
        return Pair(plain, label)
    stored = _open(record["image"], record["image_name"])
    upright = ImageOps.exif_transpose(stored)
    expected = label.shape[::-1]
    image = upright if upright.size == expected or stored.size != expected else stored
    if image.size != expected:
        raise UserError(
            f"{record['image_name']} is {image.size[0]} × {image.size[1]} pixels, but its label {record['label_name']} "
            f"is {expected[0]} × {expected[1]} (width × height): both must have the same size; never resize one alone"
        )
    return Pair(_to_rgb(image), label)


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode any photograph to upright RGB: greyscale is expanded, CMYK converted, transparency put on white.

    Raises:
      UserError: naming the file, if it is no image or a damaged one.
    """
    plain = _decode_plain_jpeg(data)
    return plain if plain is not None else _to_rgb(ImageOps.exif_transpose(_open(data, name)))


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Turn a photograph that is open already to upright RGB, as `decode_image` does."""
    return _to_rgb(ImageOps.exif_transpose(image))


def decode_label(data: bytes, name: str, label_space: LabelSpace) -> UInt8[np.ndarray, "h w"]:
    """Decode a label file to train ids; raises UserError as `decode_pair` does."""
    plain = _decode_plain_png(data)
    if plain is not None:
        return label_space.to_train_ids(plain, name)
    image = _open(data, name)
    if image.format == "JPEG":
        raise UserError(f"{name} is a JPEG: its compression changes label values; store label maps as PNG")
    if image.mode not in LABEL_MODES:
        raise UserError(
            f"{name} has the channels {image.mode} ({len(image.getbands())} numbers per pixel): a label map has one, the "
            f"number of the class, {label_space.describe_file_ids()}; convert its colours to class numbers"
        )
    if _is_plain_png(data):  # PIL passes over wrong checksums, OpenCV does not
        raise UserError(
            f"{name} is damaged (a checksum in it is wrong): replace the file or remove it from the data set"
        )
    return label_space.to_train_ids(_as_numbers(image), name)


def size_of(data: bytes, name: str) -> tuple[int, int]:
    """Read (height, width) of the upright image from its header alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data))
        except Exception as error:
            raise _undecodable(name, data, error) from error
    width, height = image.size
    # Orientations 5 … 8 of the EXIF standard exchange rows and columns.
    is_lying = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (width, height) if is_lying else (height, width)


def _decode_plain_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decode a whole, upright JPEG in colour or grey by OpenCV; None for any other, which is left to PIL.

    Both use libjpeg-turbo and give the same pixels; OpenCV hands them over in half of the time. But it is silent about a file
    that is cut off (which would lack the end marker), converts CMYK otherwise, and knows no limit for bombs.
    """
    if not (data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9")):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = Image.open(io.BytesIO(data))
            if header.format != "JPEG" or header.mode not in ("RGB", "L") or header.getexif().get(0x0112, 1) != 1:
                return None
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except Exception:  # PIL names what is wrong
        return None


def _is_plain_png(data: bytes) -> bool:
    """Tell by the header whether this is a PNG of one channel with eight bits."""
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data[24:26] == b"\x08\x00"


def _decode_plain_png(data: bytes) -> UInt8[np.ndarray, "h w"] | None:
    """Decode a PNG with eight bits of grey by OpenCV, which is quicker than PIL; None for any other and for damaged ones."""
    if not _is_plain_png(data):
        return None
    height, width = int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    if height * width > Image.MAX_IMAGE_PIXELS:
        return None
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    return values if values is not None and values.ndim == 2 else None


def _open(data: bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Odd metadata is of no concern here, and an image at half of PIL's limit is only a large one.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            image.load()
    # PIL raises OSError, SyntaxError, ValueError, struct.error … by format; whatever it is, the file is at fault.
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


def _as_numbers(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array.astype(np.uint8) if array.dtype == bool else array


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):  # PIL clips these to 0 … 255 instead of scaling them
        array = np.asarray(image, np.float64)
        top = 65535 if image.mode != "F" else max(float(array.max(initial=0)), 1.0)
        grey = np.clip(array / top * 255, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return np.asarray(image.convert("RGB"))
