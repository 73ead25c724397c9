"""Convert a decoded photograph of any kind to RGB."""

import logging
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pyrseg_jax.data.images.tiff_layout import BITS, EXTRA_SAMPLES, PHOTOMETRIC, SAMPLE_FORMAT, SAMPLES_PER_PIXEL, tag
from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)

# Chosen: no photograph holds such a value. Programs write the largest numbers of 32 bits, 3.4e38, or 9.97e36 for missing pixels.
_MISSING = 1e30
_NO_DATA = 42113  # GDAL's tag of a TIFF: the number, as text, that stands for missing pixels
_MEAN_OF_OTHERS = "pixels without data (NaN, infinite or missing): they take the mean of the others"
_NO_PIXEL = "has no pixel with data (all are NaN or missing): remove it or replace the file"
_COLORS = {"L": 1, "LA": 1, "RGB": 3, "RGBX": 3, "RGBA": 3, "CMYK": 4}  # channels of PIL's modes that hold color
_DARK = 1 / 16  # of white; programs store eight or twelve bits as sixteen without scaling them
_MAX_SAID = 10_000
_said: set[tuple[str, str]] = set()


def say_once(name: str, text: str) -> None:
    """Log a warning about a file once per process, not in each epoch."""
    if (name, text) not in _said and len(_said) < _MAX_SAID:
        _said.add((name, text))
        log.warning("%s %s", name, text)


def to_array(image: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Convert a PIL image to RGB, without turning it; put a white background behind transparency.

    Convert the image as opened: a copy of it, for example a turned one, lacks the tags of a TIFF, which say what its numbers mean.
    Numbers of more than eight bits are scaled: 16 bits from 0 … 65535 to 0 … 255, and floating-point numbers from 0 … their
    maximum, or 0 … 1. Pixels without data (NaN, infinite, above 1e30, or GDAL's value for missing pixels) take the
    mean of the others, and a warning names the file.

    Raises:
      UserError: naming the file, if no pixel has data.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):  # PIL clips these to 0 … 255 instead of scaling them
        gray = _scaled(image, name)
        return np.repeat(gray[..., None], 3, axis=-1)
    _say_unused_channels(image, name)
    if image.has_transparency_data and _has_alpha(image):
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() == (0, 0):
            say_once(name, "is transparent everywhere: it is read as a white picture")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
        return np.asarray(image.convert("RGB"))
    return _without_missing(np.asarray(image.convert("RGB")), image, name)


def _has_alpha(image: Image.Image) -> bool:
    # PIL takes the fourth channel of a TIFF for transparency, also if the file does not say so. Satellites have infrared there.
    return image.format != "TIFF" or tag(image, EXTRA_SAMPLES) is not None


def _say_unused_channels(image: Image.Image, name: str) -> None:
    if image.format != "TIFF" or image.mode not in _COLORS:
        return
    samples, colors = tag(image, SAMPLES_PER_PIXEL, 1), _COLORS[image.mode]
    if samples > colors + (image.mode in ("LA", "RGBA") and _has_alpha(image)):
        used = "the first is" if colors == 1 else f"the first {colors} are"
        say_once(name, f"has {samples} channels: only {used} used, as the color")


def _without_missing(rgb: UInt8[np.ndarray, "h w 3"], image: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Replace the pixels of a TIFF of eight bits that hold GDAL's value for missing pixels in every channel."""
    if image.format != "TIFF" or tag(image, _NO_DATA) is None or image.mode not in ("L", "RGB", "RGBX", "RGBA"):
        return rgb
    bits = tag(image, BITS, 1)
    is_missing = (rgb == _no_data_value(image)).all(-1)
    if {*(bits if isinstance(bits, tuple) else (bits,))} != {8} or not is_missing.any():
        return rgb
    if is_missing.all():
        raise UserError(f"{name} {_NO_PIXEL}")
    say_once(name, f"has {is_missing.sum()} {_MEAN_OF_OTHERS}")
    mean = np.round(rgb[~is_missing].mean(axis=0)).astype(np.uint8)
    return np.where(is_missing[..., None], mean, rgb)


def _scaled(image: Image.Image, name: str) -> UInt8[np.ndarray, "h w"]:
    values = np.asarray(image)
    if image.format == "TIFF" and image.mode == "I" and (tag(image, BITS), tag(image, SAMPLE_FORMAT, 1)) == (32, 1):
        values = values.view(np.uint32)  # PIL knows signed numbers only
    values = values.astype(np.float64)
    is_missing = ~(np.abs(values) < _MISSING) | (values == _no_data_value(image))
    if is_missing.all():
        raise UserError(f"{name} {_NO_PIXEL}")
    has_missing = bool(is_missing.any())
    present = values[~is_missing] if has_missing else values
    largest = float(present.max())
    top = _brightest(image, largest)
    if largest < top * _DARK:
        say_once(name, f"is nearly black: its largest number is {largest:g}, and {top:g} is white; scale its numbers")
    if _is_inverted(image):  # PIL inverts up to eight bits by itself
        values, present = top - values, top - present
    if has_missing:
        say_once(name, f"has {is_missing.sum()} {_MEAN_OF_OTHERS}")
        values = np.where(is_missing, np.clip(present, 0, top).mean(), values)
    if (num_negative := int((present < 0).sum())) > 0:
        say_once(name, f"has {num_negative} negative pixels: they become black")
    return np.clip(values / top * 255, 0, 255).astype(np.uint8)


def _brightest(image: Image.Image, largest: float) -> float:
    """Return the value that becomes white."""
    if image.mode == "F":
        return max(largest, 1.0)
    bits = tag(image, BITS, 16)
    if bits in range(9, 16):
        return 2**bits - 1
    return 65535 if image.mode != "I" else max(largest, 65535)


def _no_data_value(image: Image.Image) -> float:
    """Return GDAL's value for missing pixels; NaN, which equals nothing, if the file names none."""
    try:
        return float(str(tag(image, _NO_DATA, "nan")).strip("\0 "))
    except ValueError:
        return math.nan


def _is_inverted(image: Image.Image) -> bool:
    """Tell whether 0 is white in a TIFF of 16 bits."""
    return image.format == "TIFF" and image.mode.startswith("I;16") and tag(image, PHOTOMETRIC) == 0
