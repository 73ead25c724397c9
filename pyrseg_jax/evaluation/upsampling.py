"""From class probabilities to the most likely class of every pixel, where the sizes are known when the program is compiled."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

# The best so far is read and written once for so many classes. With 25 of them a CPU takes twice the time of 10.
CLASSES_AT_A_TIME = 10

Planes = tuple[tuple[Float[Array, "n h w"], UInt8[Array, "n h w"]], ...]


def class_of_pixels(probs: Float[Array, "n h w c"], size: tuple[int, int]) -> UInt8[Array, "n {size[0]} {size[1]}"]:
    """Return the argmax of the interpolated probabilities, without a tensor of all classes at all pixels.

    Bilinear with half-pixel centres, as `layers.resize`. Enlarging by a whole factor f, each pixel of an f × f cell has weights
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
