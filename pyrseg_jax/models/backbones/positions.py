"""Fit learned positions to a grid of another size, by bicubic interpolation."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Slope of the cubic kernel at distance 1: PyTorch's, without and with antialiasing.
_SLOPE = {False: -0.75, True: -0.5}


def fit_positions(
    positions: Float[Array, "side side c"], grid: tuple[int, int], antialias: bool
) -> Float[Array, "h w c"]:
    """Interpolate learned positions at the centers of the patches of another grid, in float32 at least.

    Args:
      positions: one vector for each patch of the publisher's images.
      grid: h and w, the number of patches along each axis.
      antialias: whether the kernel becomes wider where the new grid is coarser; see `bicubic_weights`.
    """
    side = positions.shape[0]
    if grid == (side, side):
        return positions
    rows, columns = (jnp.asarray(bicubic_weights(side, count, antialias), positions.dtype) for count in grid)
    # The highest precision costs nothing here: there is only one grid for the whole batch.
    return jnp.einsum("yxc,hy,wx->hwc", positions, rows, columns, precision=jax.lax.Precision.HIGHEST)


@functools.lru_cache
def bicubic_weights(size: int, new_size: int, antialias: bool) -> np.ndarray:
    """Return (new_size, size) weights: row j interpolates at (j + ½) · size / new_size - ½. Each row sums to 1.

    Args:
      size, new_size: number of positions before and after.
      antialias: False: a kernel of four positions with a slope of -0.75; the first and the last position repeat beyond the edge.
        True: a slope of -0.5; the kernel is stretched where there are fewer positions after than before; nothing lies beyond the
        edge.

    Source: `torch.nn.functional.interpolate` with mode="bicubic", align_corners=False, and either value of its antialias.
    """
    ratio = size / new_size
    stretch = max(ratio, 1.0) if antialias else 1.0
    reach = math.ceil(2 * stretch) + 1
    weights = np.zeros((new_size, size))
    for j in range(new_size):
        at = (j + 0.5) * ratio - 0.5
        for i in range(math.floor(at) - reach, math.floor(at) + reach + 2):
            inside = min(max(i, 0), size - 1)
            if inside == i or not antialias:
                weights[j, inside] += _cubic((i - at) / stretch, _SLOPE[antialias])
    return weights / weights.sum(axis=1, keepdims=True)


def _cubic(x: float, a: float) -> float:
    """Return the cubic convolution kernel with slope a at distance x. Source: Keys 1981."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0
