"""Resampling of maps on the device: feature maps, class probabilities, and single pixels of a map."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt8

RESIZE_CONVENTIONS = ("half_pixel", "align_corners", "nearest")
# The best so far is read and written once for so many classes. With 25 of them a CPU takes twice the time of 10.
CLASSES_AT_A_TIME = 10

Planes = tuple[tuple[Float[Array, "n h w"], UInt8[Array, "n h w"]], ...]
Index = Int32[Array, "k"]
Probs = Float[Array, "k c"]


@functools.partial(jax.jit, static_argnames=("size", "convention"))  # equal ones are traced once
def resize(
    x: Float[Array, "n h w c"], size: tuple[int, int], convention: str
) -> Float[Array, "n {size[0]} {size[1]} c"]:
    """Resample a feature map to (height, width).

    Args:
      x: (N, h, w, C).
      size: the height and width to reach.
      convention: `"half_pixel"`, bilinear with pixel centres at half-integers (PyTorch's `align_corners=False`);
        `"align_corners"`, bilinear with the corner pixels on top of each other; `"nearest"`, by index.

    Raises:
      ValueError: for another convention.
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
        return jax.lax.platform_dependent(
            x,
            cpu=functools.partial(_resize_half_pixel, size=size),
            default=lambda x: jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear", antialias=False),
        )
    rows, columns = (
        jnp.asarray(_align_corners_weights(fro, to), x.dtype) for to, fro in zip(size, (h, w), strict=True)
    )
    return jnp.einsum("nhwc,hi,wj->nijc", x, rows, columns)


def _resize_half_pixel(x: Float[Array, "n h w c"], size: tuple[int, int]) -> Float[Array, "n {size[0]} {size[1]} c"]:
    """Do what `jax.image.resize` does, with the channels last in between as well.

    Its matrix products leave the map transposed, and on CPU each use of the result turns it again: a product for each row, and
    for each image, does not.
    """
    n, h, w, c = x.shape
    rows, columns = (jnp.asarray(_half_pixel_weights(fro, to), x.dtype) for to, fro in zip(size, (h, w), strict=True))
    product = functools.partial(jnp.einsum, precision="highest")
    wide = product("nhjw,nhwc->nhjc", jnp.broadcast_to(columns, (n, h, *columns.shape)), x)
    wide = wide.reshape(n, h, size[1] * c)
    return product("nih,nhk->nik", jnp.broadcast_to(rows, (n, *rows.shape)), wide).reshape(n, *size, c)


@functools.lru_cache
def _half_pixel_weights(size: int, new_size: int) -> np.ndarray:
    """Return (new_size, size) weights: row j interpolates at position (j + ½) · size / new_size - ½, within the edges."""
    at = np.clip((np.arange(new_size) + 0.5) * size / new_size - 0.5, 0, size - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size)[None, :]))


@functools.lru_cache
def _align_corners_weights(size: int, new_size: int) -> np.ndarray:
    """Return (size, new_size) weights: column j interpolates at position j · (size - 1) / (new_size - 1)."""
    at = np.arange(new_size) * ((size - 1) / max(new_size - 1, 1))
    return np.maximum(0, 1 - np.abs(np.arange(size)[:, None] - at[None, :]))


def class_of_pixels(probs: Float[Array, "n h w c"], size: tuple[int, int]) -> UInt8[Array, "n {size[0]} {size[1]}"]:
    """Return the argmax of the interpolated probabilities, without a tensor of all classes at all pixels.

    Bilinear with half-pixel centres, as `resample.resize`. Enlarging by a whole factor f, each pixel of an f × f cell has weights
    of its own that are the same in every cell; so there are f² planes of the size of the map, and a few classes after another are
    compared with the best so far in each of them.

    Args:
      probs: (N, h, w, C).
      size: the height and width to reach, the same multiple of h and w.

    Raises:
      ValueError: if it is none.
    """
    _, h, w, _ = probs.shape
    factor = size[0] // h
    if size != (factor * h, factor * w):
        raise ValueError(f"size={size}: expected the same multiple of both sides of the map, {(h, w)}")

    def at_once(probs):
        return _class_of_pixels(probs, factor)

    def one_by_one(probs):
        return jax.lax.map(lambda image: _class_of_pixels(image[None], factor)[0], probs)

    # The planes of one image stay in a core's cache from class to class. Accelerators want more work at a time.
    return jax.lax.platform_dependent(probs, cpu=one_by_one, default=at_once)


def _class_of_pixels(probs: Float[Array, "n h w c"], factor: int) -> UInt8[Array, "n {factor}*h {factor}*w"]:
    n, h, w, num_classes = probs.shape
    by_class = probs.transpose(3, 0, 1, 2)
    at_a_time = min(CLASSES_AT_A_TIME, num_classes)

    def compare(i, best: Planes) -> Planes:
        # The last round begins early enough to be a whole one: a class that is compared again beats nothing.
        first = jnp.minimum(i * at_a_time, num_classes - at_a_time)
        some = jax.lax.dynamic_slice_in_dim(by_class, first, at_a_time)
        # Past the edge lies what is on it. Padded once, for all planes: shifts are then slices, which take whole vectors.
        some = jnp.pad(some, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        rows = [_between(some, 2, (a + 0.5) / factor - 0.5) for a in range(factor)]
        found = [_between(row, 3, (b + 0.5) / factor - 0.5) for row in rows for b in range(factor)]
        for j in range(at_a_time):
            c = (first + j).astype(jnp.uint8)
            best = tuple(
                (jnp.where(values[j] > highest, values[j], highest), jnp.where(values[j] > highest, c, classes))
                for values, (highest, classes) in zip(found, best, strict=True)
            )
        return best

    # Ties go to the lower class, as in an argmax.
    nothing = jnp.full((n, h, w), -jnp.inf, probs.dtype), jnp.zeros((n, h, w), jnp.uint8)
    best = jax.lax.fori_loop(0, -(-num_classes // at_a_time), compare, (nothing,) * factor**2)
    classes = jnp.stack([classes for _, classes in best]).reshape(factor, factor, n, h, w)
    return classes.transpose(2, 3, 0, 4, 1).reshape(n, factor * h, factor * w)


def _between(x: Float[Array, "c n h w"], axis: int, by: float) -> Float[Array, "c n _ _"]:
    """Interpolate at each position + `by` along an axis that has one more at either end, |by| < 1."""
    here = jax.lax.slice_in_dim(x, 1, -1, axis=axis)
    if not by:
        return here
    first = 2 if by > 0 else 0
    beside = jax.lax.slice_in_dim(x, first, first + here.shape[axis], axis=axis)
    return here * (1 - abs(by)) + beside * abs(by)


def interpolate_at(values: Callable[[Index], Probs], height, width, pixels: Index, size: Int32[Array, "2"]) -> Probs:
    """Interpolate a map at pixels of an image of `size` that it stretches over.

    Bilinear with half-pixel centres (PyTorch's `align_corners=False`).

    Args:
      values: row-major position in the map → its probabilities.
      height, width: of the map.
      pixels: row-major positions in the image.
      size: its height and width.
    """
    above, below, down = _taps(pixels // size[1], height, size[0])
    left, right, across = _taps(pixels % size[1], width, size[1])
    left_side = values(above * width + left) * (1 - down) + values(below * width + left) * down
    right_side = values(above * width + right) * (1 - down) + values(below * width + right) * down
    return left_side * (1 - across) + right_side * across


def _taps(
    at_out: Index, num_in: Int32[Array, ""], num_out: Int32[Array, ""]
) -> tuple[Index, Index, Float[Array, "k 1"]]:
    """Return, per output position, the two input positions around it and the share of the second."""
    at = jnp.clip((at_out + 0.5) * (num_in / num_out) - 0.5, 0, num_in - 1)
    before = jnp.floor(at).astype(jnp.int32)
    return before, jnp.minimum(before + 1, num_in - 1), (at - before)[:, None]
