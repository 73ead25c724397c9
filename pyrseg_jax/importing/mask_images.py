"""Read label maps that other tools wrote: numbers, palette indices, or colors, exactly as the file stores them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL.GifImagePlugin import GifImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pyrseg_jax.data.images.image_formats import LABEL_FORMATS, LABEL_SUFFIXES
from pyrseg_jax.data.images.label_samples import LABEL_MODES, check_label_file, stored_samples, with_palette
from pyrseg_jax.data.images.open_image import ACTION, load_image, open_image, recognize
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.importing.color_maps import pack, unpack

MASK_FORMATS = (*LABEL_FORMATS, "GIF", "WEBP")
MASK_SUFFIXES = (*LABEL_SUFFIXES, ".gif", ".webp")
ADVICE = "replace the mask or remove it with its picture"
EQUAL_CHANNELS = "label map with three equal channels, which was read as one"
NO_MEANING = 2**16 - 2  # in tables of `to_class_map`: a value that no class has
_COLOR_MODES = ("RGB", "RGBA", "LA")


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
      UserError: naming the file, if it cannot be decoded, is a JPEG, a lossy WebP, or an animation, or has neither numbers nor
        colors of eight bits, or if only the transparency tells pixels apart.
    """
    if data.startswith(b"\xff\xd8\xff"):
        raise UserError(f"{name} is a JPEG: its compression changes the values of a mask; export the masks as PNG")
    original, kind = data, recognize(data, name, MASK_FORMATS)
    if kind in ("GIF", "WEBP"):
        return _read_colors_alone(data, name, kind)
    if kind == "BMP":
        data = with_palette(data)
    image = open_image(data, name, LABEL_FORMATS)
    with naming_file(name, ACTION, ADVICE):
        if image.mode in LABEL_MODES:
            check_label_file(image, name, "one number per pixel")
            load_image(image, data, name)
            values = stored_samples(image, data, name)
            if data != original:
                return Mask(values, _bmp_colors(original, values))
            return Mask(values, np.asarray(image.convert("RGB")) if image.mode == "P" else None)
        load_image(image, data, name)
        if image.mode not in _COLOR_MODES:
            raise UserError(
                f"{name} has the channels {image.mode}: expected numbers, a palette, or the colors of classes (RGB)"
            )
        if "A" in image.mode:
            _check_alpha(np.asarray(image.convert("RGBA")), name)
        return Mask(None, np.asarray(image.convert("RGB")))


def _read_colors_alone(data: bytes, name: str, kind: str) -> Mask:
    """Decode a GIF or a WebP. Programs number the palette of a GIF as they like, so the colors count, not the indices.

    Grays are numbers, because neither format can hold numbers in another way.
    """
    if kind == "WEBP" and b"VP8L" not in webp_chunks(data):
        raise UserError(
            f"{name} is a lossy WebP: its compression changes the values of a mask; export the masks as PNG, or as lossless WebP"
        )
    image = open_image(data, name, (kind,))
    with naming_file(name, ACTION, ADVICE):
        if isinstance(image, GifImageFile | WebPImageFile) and image.n_frames > 1:
            raise UserError(
                f"{name} is an animation of {image.n_frames} pictures: expected one; export the mask as PNG"
            )
        load_image(image, data, name)
        colors = np.asarray(image.convert("RGBA"))
    if kind == "WEBP" and (colors[..., 3] == 0).any():
        raise UserError(
            f"{name} has transparent pixels, whose colors WebP does not keep: save the mask without transparency, or as PNG"
        )
    _check_alpha(colors, name)
    return Mask(gray, None) if (gray := one_channel(colors[..., :3])) is not None else Mask(None, colors[..., :3])


def webp_chunks(data: bytes) -> list[bytes]:
    """Return the names of the parts of a WebP: `VP8L` holds a lossless picture, and `VP8 ` a lossy one."""
    names, place = [], 12
    while place + 8 <= len(data):
        names.append(data[place : place + 4])
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return names


def one_channel(colors: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"] | None:
    """Return the one number per pixel that all three channels repeat, or None if they differ anywhere."""
    return colors[..., 0] if (colors == colors[..., :1]).all() else None


def _bmp_colors(data: bytes, values: np.ndarray) -> np.ndarray | None:
    """Return the colors of a BMP's pixels by the palette in the file, or None if the palette only repeats the values in gray."""
    header_size = int.from_bytes(data[14:18], "little")
    size = 4 if header_size > 12 else 3  # bytes of an entry: blue, green, red, and one that is not used
    start, stop = 14 + header_size, int.from_bytes(data[10:14], "little")
    entries = np.frombuffer(data[start:stop][: (stop - start) // size * size], np.uint8).reshape(-1, size)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(entries)] = entries[:256, 2::-1]
    ramp = np.linspace(0, 255, max(len(entries), 2)).astype(np.uint8)[: len(entries)]
    return None if (palette[: len(entries)] == ramp[:, None]).all() else palette[values]


def _check_alpha(colors: UInt8[np.ndarray, "h w 4"], name: str) -> None:
    """Refuse a mask with pixels of one color that are partly transparent and partly not: the mask may be in the transparency."""
    is_clear = colors[..., 3] == 0
    shared = np.intersect1d(pack(colors[is_clear][:, :3]), pack(colors[~is_clear][:, :3]))
    if shared.size:
        color = ", ".join(map(str, unpack(int(shared[0]))))
        raise UserError(
            f"{name} has transparent and opaque pixels of the color ({color}): expected colors that tell the classes apart; save "
            "the mask without transparency"
        )


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
