"""Translate the colors of a mask to class maps, and find which colors occur."""

import collections
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8, UInt16

from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.class_list import Color

MAX_COLORS = 255  # nobody draws more classes than this by hand
_RARE = 1e-4  # share of the pixels: blended borders give many colors of few pixels each


def pack(colors: UInt8[np.ndarray, "*size 3"]) -> np.ndarray:
    """Return each color as one number, 0xRRGGBB."""
    wide = colors.astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def unpack(number: int) -> Color:
    """Return the color of a number 0xRRGGBB."""
    return number >> 16, number >> 8 & 255, number & 255


def colors_to_class_map(
    colors: UInt8[np.ndarray, "h w 3"], values: Mapping[Color, int], names: str, name: str
) -> UInt16[np.ndarray, "h w"]:
    """Look up the colors of a mask.

    Args:
      colors: the pixels.
      values: color → value in class maps.
      names: where the colors are listed, for messages.
      name: the file of the mask, for messages.

    Raises:
      UserError: naming the file, the first color that is not listed, its pixel, and the nearest color that is.
    """
    packed = pack(colors)
    known = np.array(
        sorted((red << 16 | green << 8 | blue, value) for (red, green, blue), value in values.items()), np.int64
    )
    position = np.clip(np.searchsorted(known[:, 0], packed), 0, len(known) - 1)
    is_wrong = known[position, 0] != packed
    if is_wrong.any():
        row, column = np.argwhere(is_wrong)[0]
        color = tuple(map(int, colors[row, column]))
        nearest = min(values, key=lambda other: sum((a - b) ** 2 for a, b in zip(color, other, strict=True)))
        count = int((packed == packed[row, column]).sum())
        raise UserError(
            f"{name}: the color {_text(color)} at row {row}, column {column} ({count} pixels of it) is not in {names}; the "
            f"nearest is {_text(nearest)}: add the color, or correct the mask, for example where a tool smoothed its borders"
        )
    return known[position, 1].astype(np.uint16)


def find_colors(masks: Iterable[tuple[str, UInt8[np.ndarray, "h w 3"]]]) -> list[tuple[Color, int]]:
    """Return the colors of masks with their numbers of pixels, the most frequent first.

    Raises:
      UserError: if there are too many colors for classes, as with smoothed borders, or in photographs.
    """
    counts: collections.Counter[int] = collections.Counter()
    for name, colors in masks:
        found, number = np.unique(pack(colors), return_counts=True)
        if len(found) > MAX_COLORS:
            raise _too_many(name, dict(zip(found.tolist(), number.tolist(), strict=True)))
        counts.update(dict(zip(found.tolist(), number.tolist(), strict=True)))
        if len(counts) > MAX_COLORS:
            raise _too_many(f"the masks up to {name}", counts)
    return [(unpack(number), count) for number, count in counts.most_common()]


def _too_many(name: str, counts: Mapping[int, int]) -> UserError:
    total = sum(counts.values())
    frequent = sum(count > _RARE * total for count in counts.values())
    if frequent <= MAX_COLORS // 4:
        return UserError(
            f"{name}: {len(counts)} colors, but only {frequent} of them fill more than {_RARE:.2%} of the pixels: the borders look "
            "smoothed or compressed; export the masks again without smoothing (anti-aliasing), as PNG"
        )
    return UserError(
        f"{name}: {len(counts)} colors, far more than classes have: this looks like a photograph, not like a mask with one color "
        "per class"
    )


def propose_list(colors: Sequence[tuple[Color, int]]) -> str:
    """Return the text of a list of classes for found colors, whose names the user then replaces."""
    total = max(sum(count for _, count in colors), 1)
    lines = ["# one class per line: NAME,R,G,B (replace the names; the word void marks pixels without a class)"]
    for (red, green, blue), count in colors:
        lines += [f"# {count / total:.2%} of all pixels", f"color_{red:02x}{green:02x}{blue:02x},{red},{green},{blue}"]
    return "\n".join(lines) + "\n"


def _text(color: Sequence[int]) -> str:
    return f"({', '.join(map(str, color))})"
