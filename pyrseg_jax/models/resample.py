"""Resample maps on the device: feature maps, class probabilities, and single pixels of a map.

This is the only file on the device side that resamples, so the half-pixel convention is written once: the center of pixel i lies
at i + 0.5, and a map stretches over the whole image.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt

from pyrseg_jax.conventions import label_dtype
from pyrseg_jax.models import xla_cpu

RESIZE_CONVENTIONS = {
    "half_pixel": "bilinear, pixel centers at half-integers (PyTorch's align_corners=False)",
    "align_corners": "bilinear, the centers of the corner pixels aligned (PyTorch's align_corners=True)",
    "nearest": "nearest neighbor inside the exchange units, bilinear (half_pixel) where the branches are joined",
}
# Number of classes compared per pass over the best values so far. On a CPU, 25 take twice as long as 10.
CLASSES_AT_A_TIME = 10

Planes = tuple[tuple[Float[Array, "n h w"], UInt[Array, "n h w"]], ...]
Index = Int32[Array, "k"]
Probs = Float[Array, "k c"]


@functools.partial(jax.jit, static_argnames=("size", "convention"))  # jit, so that equal calls are traced once
def resize(
    x: Float[Array, "n h w c"], size: tuple[int, int], convention: str
) -> Float[Array, "n {size[0]} {size[1]} c"]:
    """Resample a feature map to (height, width).

    Args:
      x: (N, h, w, C).
      size: (height, width) of the result.
      convention: `"half_pixel"`, bilinear with pixel centers at half-integers (PyTorch's `align_corners=False`);
        `"align_corners"`, bilinear with the corner pixels' centers aligned; `"nearest"`, by index.

    Raises:
      ValueError: if `convention` is none of these.
    """
    if convention not in RESIZE_CONVENTIONS:
        raise ValueError(f"resize={convention!r}: expected one of {', '.join(map(repr, RESIZE_CONVENTIONS))}")
    h, w = x.shape[1:3]
    if (h, w) == tuple(size):
        return x
    if convention == "nearest":
        rows, columns = (np.arange(to) * fro // to for to, fro in zip(size, (h, w), strict=True))
        return x[:, rows][:, :, columns]
    if convention == "half_pixel":
        sides = tuple(zip(size, (h, w), strict=True))

        def on_cpu(x):
            return xla_cpu.resample_separably(
                x, *(jnp.asarray(_half_pixel_weights(fro, to), x.dtype) for to, fro in sides)
            )

        def elsewhere(x):
            return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear", antialias=False)

        return jax.lax.platform_dependent(x, cpu=on_cpu, default=elsewhere)
    rows, columns = (
        jnp.asarray(_align_corners_weights(fro, to), x.dtype) for to, fro in zip(size, (h, w), strict=True)
    )
    return jnp.einsum("nhwc,hi,wj->nijc", x, rows, columns)


@functools.lru_cache
def _half_pixel_weights(size: int, new_size: int) -> np.ndarray:
    """Return (new_size, size) weights: row j interpolates at (j + ½) · size / new_size - ½, clamped to the edges."""
    at = np.clip((np.arange(new_size) + 0.5) * size / new_size - 0.5, 0, size - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size)[None, :]))


@functools.lru_cache
def _align_corners_weights(size: int, new_size: int) -> np.ndarray:
    """Return (size, new_size) weights: column j interpolates at position j · (size - 1) / (new_size - 1)."""
    at = np.arange(new_size) * ((size - 1) / max(new_size - 1, 1))
    return np.maximum(0, 1 - np.abs(np.arange(size)[:, None] - at[None, :]))


def class_of_pixels(probs: Float[Array, "n h w c"], size: tuple[int, int]) -> UInt[Array, "n {size[0]} {size[1]}"]:
    """Return the argmax of interpolated probabilities, without a tensor of all classes at all pixels.

    Bilinear with half-pixel centers, like `resize`. When a map is enlarged by a whole factor f, each pixel of an f × f cell has
    interpolation weights that are the same in every cell. So there are f² planes of the size of the map, and in each of them a
    few classes at a time are compared with the best class so far. Of equally likely classes, the lowest wins.

    Args:
      probs: (N, h, w, C).
      size: (height, width) of the result: the same multiple of h and of w.

    Raises:
      ValueError: if `size` is not such a multiple.
    """
    _, h, w, _ = probs.shape
    factor = size[0] // h
    if size != (factor * h, factor * w):
        raise ValueError(f"size={size}: expected the same multiple of both sides of the map, {(h, w)}")

    def at_once(probs):
        return _class_of_pixels(probs, factor)

    def on_cpu(probs):
        return xla_cpu.one_image_at_a_time(at_once, probs)

    # One image's planes stay in a CPU core's cache from class to class. Accelerators need more work at a time.
    return jax.lax.platform_dependent(probs, cpu=on_cpu, default=at_once)


def _class_of_pixels(probs: Float[Array, "n h w c"], factor: int) -> UInt[Array, "n {factor}*h {factor}*w"]:
    n, h, w, num_classes = probs.shape
    by_class = probs.transpose(3, 0, 1, 2)
    at_a_time, dtype = min(CLASSES_AT_A_TIME, num_classes), label_dtype(num_classes)

    def compare(i, best: Planes) -> Planes:
        # The last round starts early enough to be a full one: a class that is compared twice does not beat itself.
        first = jnp.minimum(i * at_a_time, num_classes - at_a_time)
        some = jax.lax.dynamic_slice_in_dim(by_class, first, at_a_time)
        # Beyond the edge, the edge repeats. Padding once for all planes turns shifts into slices, which vectorize.
        some = jnp.pad(some, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        rows = [_between(some, 2, (a + 0.5) / factor - 0.5) for a in range(factor)]
        found = [_between(row, 3, (b + 0.5) / factor - 0.5) for row in rows for b in range(factor)]
        for j in range(at_a_time):
            c = (first + j).astype(dtype)
            best = tuple(
                (jnp.where(values[j] > highest, values[j], highest), jnp.where(values[j] > highest, c, classes))
                for values, (highest, classes) in zip(found, best, strict=True)
            )
        return best

    # Ties go to the lower class, as in an argmax.
    nothing = jnp.full((n, h, w), -jnp.inf, probs.dtype), jnp.zeros((n, h, w), dtype)
    best = jax.lax.fori_loop(0, -(-num_classes // at_a_time), compare, (nothing,) * factor**2)
    classes = jnp.stack([classes for _, classes in best]).reshape(factor, factor, n, h, w)
    return classes.transpose(2, 3, 0, 4, 1).reshape(n, factor * h, factor * w)


def _between(x: Float[Array, "c n h w"], axis: int, by: float) -> Float[Array, "c n _ _"]:
    """Interpolate at each position + `by`, |by| < 1, along an axis that is padded by one at either end."""
    here = jax.lax.slice_in_dim(x, 1, -1, axis=axis)
    if not by:
        return here
    first = 2 if by > 0 else 0
    beside = jax.lax.slice_in_dim(x, first, first + here.shape[axis], axis=axis)
    return here * (1 - abs(by)) + beside * abs(by)


def interpolate_at(
    values: Callable[[Index], Probs], grid: Int32[Array, "2"], pixels: Index, size: Int32[Array, "2"]
) -> Probs:
    """Interpolate a map at some pixels of an image over which it stretches.

    Bilinear with half-pixel centers (PyTorch's `align_corners=False`). All sizes are values, so one program serves all images.

    Args:
      values: a function from (k,) row-major positions in the map to their (k, C) probabilities.
      grid: height and width of the map.
      pixels: (k,) row-major positions in the image.
      size: height and width of the image in pixels.
    """
    height, width = grid
    above, below, down = _taps(pixels // size[1], height, size[0])
    left, right, across = _taps(pixels % size[1], width, size[1])
    left_side = values(above * width + left) * (1 - down) + values(below * width + left) * down
    right_side = values(above * width + right) * (1 - down) + values(below * width + right) * down
    return left_side * (1 - across) + right_side * across


def patch_of_pixels(grid: Int32[Array, "2"], pixels: Index, size: Int32[Array, "2"]) -> Index:
    """Return the position at the upper left of each pixel, the first of the four that `interpolate_at` averages."""
    above, _, _ = _taps(pixels // size[1], grid[0], size[0])
    left, _, _ = _taps(pixels % size[1], grid[1], size[1])
    return above * grid[1] + left


def corners_at(at: Index, grid: Int32[Array, "2"]) -> tuple[Index, Index, Index, Index]:
    """Return the four positions that `interpolate_at` averages, given the first; at the edge of the map, it repeats."""
    height, width = grid
    row, column = at // width, at % width
    below, right = jnp.minimum(row + 1, height - 1), jnp.minimum(column + 1, width - 1)
    return row * width + column, below * width + column, row * width + right, below * width + right


def interpolate_at_points(x: Float[Array, "n h w c"], points: Float[Array, "n p 2"]) -> Float[Array, "n p c"]:
    """Interpolate a map at points, bilinearly; beyond its edge, the map is 0.

    A point on the edge of the map lies half a position outside of the outermost centers, so it gets half of their values.

    Args:
      x: (N, h, w, C).
      points: rows and columns as shares of the height and the width, in 0 … 1; the center of position i of n is at (i + ½) / n.

    Returns:
      (N, P, C) in float32.
    """
    n, height, width, channels = x.shape
    at = points.astype(jnp.float32) * jnp.array([height, width], jnp.float32) - 0.5
    before = jnp.floor(at)
    share = at - before
    row, column = (before[..., i].astype(jnp.int32) for i in range(2))
    flat, total = x.reshape(n, height * width, channels), jnp.zeros((), jnp.float32)
    for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
        i, j = row + down, column + across
        weight = jnp.abs(1 - down - share[..., 0]) * jnp.abs(1 - across - share[..., 1])
        weight = jnp.where((i >= 0) & (i < height) & (j >= 0) & (j < width), weight, 0)
        position = jnp.clip(i, 0, height - 1) * width + jnp.clip(j, 0, width - 1)
        total += jnp.take_along_axis(flat, position[..., None], axis=1) * weight[..., None]
    return total


def _taps(
    at_out: Index, num_in: Int32[Array, ""], num_out: Int32[Array, ""]
) -> tuple[Index, Index, Float[Array, "k 1"]]:
    """Return, per output position, the two input positions around it and the weight of the second."""
    at = jnp.clip((at_out + 0.5) * (num_in / num_out) - 0.5, 0, num_in - 1)
    before = jnp.floor(at).astype(jnp.int32)
    return before, jnp.minimum(before + 1, num_in - 1), (at - before)[:, None]
