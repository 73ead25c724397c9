"""Convert a decoded photograph of any kind to RGB."""

import logging

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from pyrseg_jax.data.tiff_layout import BITS, PHOTOMETRIC, tag
from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)

# Chosen: no photograph holds such a value. Programs write the largest numbers of 32 bits, 3.4e38, or 9.97e36 for missing pixels.
_MISSING = 1e30
_NO_DATA = 42113  # GDAL's tag of a TIFF: the number, as text, that stands for missing pixels
_MAX_SAID = 10_000
_said: set[tuple[str, str]] = set()


def say_once(name: str, text: str) -> None:
    """Log a warning about a file once per process, not in each epoch."""
    if (name, text) not in _said and len(_said) < _MAX_SAID:
        _said.add((name, text))
        log.warning("%s %s", name, text)


def to_array(image: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Convert a PIL image to RGB, without turning it; put a white background behind transparency.

    Numbers of more than eight bits are scaled: 16 bits from 0 … 65535 to 0 … 255, and floating-point numbers from 0 … their
    maximum, or 0 … 1. Pixels without data (NaN, infinite, above 1e30, or GDAL's value for missing pixels) take the
    mean of the others, and a warning names the file.

    Raises:
      UserError: naming the file, if no pixel has data.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):  # PIL clips these to 0 … 255 instead of scaling them
        gray = _scaled(image, name)
        return np.repeat(gray[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return np.asarray(image.convert("RGB"))


def _scaled(image: Image.Image, name: str) -> UInt8[np.ndarray, "h w"]:
    values = np.asarray(image, np.float64)
    is_missing = ~(np.abs(values) < _MISSING) | _is_no_data(image, values)
    if is_missing.all():
        raise UserError(f"{name} has no pixel with data (all are NaN or missing): remove it or replace the file")
    has_missing = bool(is_missing.any())
    present = values[~is_missing] if has_missing else values
    top = _brightest(image, float(present.max()))
    if _is_inverted(image):  # PIL inverts up to eight bits by itself
        values, present = top - values, top - present
    if has_missing:
        say_once(
            name,
            f"has {is_missing.sum()} pixels without data (NaN, infinite or missing): they take the mean of the others",
        )
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


def _is_no_data(image: Image.Image, values: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    try:
        return values == float(str(tag(image, _NO_DATA, "nan")).strip("\0 "))
    except ValueError:
        return np.zeros(values.shape, bool)


def _is_inverted(image: Image.Image) -> bool:
    """Tell whether 0 is white in a TIFF of 16 bits."""
    return image.format == "TIFF" and image.mode.startswith("I;16") and tag(image, PHOTOMETRIC) == 0
