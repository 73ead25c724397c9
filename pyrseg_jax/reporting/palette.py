"""Colors of classes, levels and cells, and class colors blended over an image."""

from __future__ import annotations

import functools

import numpy as np

from pyrseg_jax.conventions import label_dtype, void_of
from pyrseg_jax.data.label_space import MAX_CLASSES, LabelSpace

DONE_GRAY = 226  # gray level of cells that a coarser level has decided
_MIXED_GRAYS = (92, 132)
_NUM_FAR = 255  # colors that are chosen to be far from each other; no eye tells more of them apart
_CONTOUR_EVERY_PX = 960  # the contour is one pixel wider for each 960 px of the longer side

# Lightness and chroma of the default colors, in CIELAB. The bounds keep them away from black, from the
# white of the page, and from the grays that mean "no class here".
_LIGHTNESS = (30.0, 82.0)
_CHROMA = (28.0, 62.0)
_FIRST_COLOR = (66, 118, 180)


def default_colors(num_classes: int) -> np.ndarray:
    """Choose one color per class, each as far as possible from all earlier ones.

    Args:
      num_classes: C, in 1..10,000.

    Returns:
      (C, 3) uint8, all rows different. The colors of fewer classes are the first rows of the colors of more
      classes. No color is close to gray, white or black.

    Raises:
      ValueError: if `num_classes` is out of range.

    Chosen: farthest-point selection in CIELAB, where distances approximate perceived differences. From the 256th class on, the
    colors are only different, and neighbors in the list do not resemble each other.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"num_classes is {num_classes}; expected 1..{MAX_CLASSES}")
    if num_classes <= _NUM_FAR:
        return _farthest_colors()[:num_classes].copy()
    return np.concatenate([_farthest_colors(), _further_colors()[: num_classes - _NUM_FAR]])


def colors_of(label_space: LabelSpace) -> np.ndarray:
    """Return the data set's own colors (C, 3) uint8, or default ones if it has none."""
    return np.array(label_space.colors, np.uint8) if label_space.colors else default_colors(label_space.num_classes)


@functools.cache
def _farthest_colors() -> np.ndarray:
    candidates = _candidates(18)
    lab = _cielab(candidates)
    chosen = [np.array(_FIRST_COLOR, np.uint8)]
    distance = np.linalg.norm(lab - _cielab(chosen[0]), axis=1)
    while len(chosen) < _NUM_FAR:
        best = int(distance.argmax())
        chosen.append(candidates[best])
        distance = np.minimum(distance, np.linalg.norm(lab - lab[best], axis=1))
    return np.stack(chosen)


@functools.cache
def _further_colors() -> np.ndarray:
    """Return colors for the classes after the first 255, in an order that jumps through the color space."""
    candidates = _candidates(60)
    codes = candidates.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    used = _farthest_colors().astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    candidates, codes = candidates[~np.isin(codes, used)], codes[~np.isin(codes, used)]
    # Source: Knuth's multiplicative hashing: the golden ratio, times 2^32, scatters consecutive numbers.
    return candidates[np.argsort(codes * np.uint32(2654435761), kind="stable")]


def _candidates(num_steps: int) -> np.ndarray:
    """Return the colors of a regular grid of RGB that may stand for a class."""
    steps = np.linspace(0, 255, num_steps).round().astype(np.uint8)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _cielab(candidates)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    allowed = (lab[:, 0] >= _LIGHTNESS[0]) & (lab[:, 0] <= _LIGHTNESS[1])
    allowed &= (chroma >= _CHROMA[0]) & (chroma <= _CHROMA[1])
    return candidates[allowed]


def _cielab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB bytes (..., 3) to CIELAB under the D65 white. Source: IEC 61966-2-1 and CIE 15."""
    value = rgb.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def level_colors(num_levels: int) -> np.ndarray:
    """Return (L, 3) uint8, ordered from light (coarsest level) to dark (finest level)."""
    from matplotlib import colormaps

    return colormaps["YlGnBu"](np.linspace(0.12, 0.92, num_levels), bytes=True)[:, :3]


def probability_colors(probability: np.ndarray) -> np.ndarray:
    """Color probabilities (...) in 0..1 from dark (0) to bright (1): (..., 3) uint8."""
    from matplotlib import colormaps

    return colormaps["viridis"](np.asarray(probability, np.float32), bytes=True)[..., :3]


def hatch(shape: tuple[int, int], ground: int, line: int, period_px: int) -> np.ndarray:
    """Draw diagonal lines of one gray on another: (h, w, 3) uint8. No class color looks like this."""
    diagonal = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % period_px
    gray = np.where(diagonal < max(1, period_px // 4), line, ground).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


def void_texture(shape: tuple[int, int]) -> np.ndarray:
    """Draw the texture of void pixels: (h, w, 3) uint8, white with thin dark lines."""
    return hatch(shape, ground=255, line=120, period_px=7)


def mixed_texture(shape: tuple[int, int]) -> np.ndarray:
    """Draw the texture of mixed cells: (h, w, 3) uint8, gray with lines, because a class may be plain gray."""
    return hatch(shape, ground=_MIXED_GRAYS[0], line=_MIXED_GRAYS[1], period_px=8)


def paint_labels(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Paint train ids (h, w) in `colors` (C, 3), and void with its texture: (h, w, 3) uint8."""
    is_void = labels == void_of(labels.dtype)
    painted = colors[np.where(is_void, 0, labels)]
    return np.where(is_void[..., None], void_texture(labels.shape), painted)


def check_labels(name: str, labels: np.ndarray, shape: tuple[int, int], num_classes: int) -> None:
    """Raise ValueError unless `labels` is uint8, or uint16 for more than 255 classes, has this shape, and holds ids or void."""
    dtype = label_dtype(num_classes)
    if labels.shape != tuple(shape) or labels.dtype != dtype:
        raise ValueError(
            f"{name} has shape {labels.shape} and type {labels.dtype}; expected {tuple(shape)} and {dtype}"
        )
    void = void_of(dtype)
    strange = labels[(labels >= num_classes) & (labels != void)]
    if strange.size:
        raise ValueError(
            f"{name} holds the class id {strange.flat[0]}; there are colors for "
            f"{num_classes} classes, so expected 0..{num_classes - 1} or {void} (void)"
        )


def check_image(image: np.ndarray) -> None:
    """Raise ValueError unless `image` is a non-empty (H, W, 3) uint8 array."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"image has shape {image.shape} and type {image.dtype}; expected (H, W, 3) and uint8")


def check_colors(colors: np.ndarray) -> None:
    """Raise ValueError unless `colors` is a (C, 3) uint8 array with C in 1..10,000."""
    if colors.ndim != 2 or colors.shape[1] != 3 or colors.dtype != np.uint8 or not 1 <= len(colors) <= MAX_CLASSES:
        raise ValueError(
            f"colors has shape {colors.shape} and type {colors.dtype}; "
            f"expected (C, 3) and uint8 with C in 1..{MAX_CLASSES}"
        )


def overlay(image: np.ndarray, labels: np.ndarray, colors: np.ndarray, alpha: float = 0.55) -> np.ndarray:
    """Blend class colors over an image, with a thin contour between segments.

    Args:
      image: (H, W, 3) uint8.
      labels: (H, W) train ids; void pixels (`conventions.void_of` their type) keep the image's color.
      colors: (C, 3) uint8.
      alpha: weight of the class color, in 0..1.

    Returns:
      (H, W, 3) uint8. A contour has the color of its class: darker where that is bright, lighter where it is dark.

    Raises:
      ValueError: if a shape, a type, a class id or `alpha` does not fit.
    """
    check_image(image)
    check_colors(colors)
    check_labels("labels", labels, image.shape[:2], len(colors))
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; expected a weight in 0..1")
    is_void = labels == void_of(labels.dtype)
    ids = np.where(is_void, 0, labels)
    blended = image + alpha * (colors[ids].astype(np.float32) - image)
    # Rec. 601 luma approximates perceived brightness.
    is_bright = (colors @ np.array([0.299, 0.587, 0.114]) >= 110)[:, None]
    contour_colors = np.where(is_bright, 0.45 * colors, 0.5 * colors + 127.5)
    on_contour = _contours(labels)
    blended[on_contour] = contour_colors[ids[on_contour]]
    blended[is_void] = image[is_void]
    return blended.round().astype(np.uint8)


def _contours(labels: np.ndarray) -> np.ndarray:
    """Mark the pixels left of or above a change of label, and those just after void: (H, W) bool."""
    marked = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        along, out = np.moveaxis(labels, axis, 0), np.moveaxis(marked, axis, 0)
        for distance in range(1, 2 + max(labels.shape) // _CONTOUR_EVERY_PX):
            differs = along[:-distance] != along[distance:]
            out[:-distance] |= differs
            # Contours never cover void: where void comes first, the contour goes to the other side.
            out[distance:] |= differs & (along[:-distance] == void_of(labels.dtype))
    return marked
