"""Rotary positions on a grid of patches, as DINOv3 has them: queries and keys are turned by angles that grow with the position.

The product of a turned query and a turned key depends on how far their patches are apart, and not on where they are.

Source: Su et al. 2021, "RoFormer"; Siméoni et al. 2025, "DINOv3", for the coordinates.
Differs: the publisher shifts, stretches and rescales the coordinates at random while it trains without labels. Ours stay fixed.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

BASE = 100.0  # of the periods: the longest is nearly this many times the shortest


@functools.lru_cache
def rotary_tables(grid: tuple[int, int], num_prefix: int, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines and the sines of the angles of all tokens, each (num_prefix + h · w, head_dim) in float64.

    The centers of the patches have coordinates from -1 to 1 along each axis, whatever the size of the grid. Half of the angles
    belong to the rows and half to the columns. The angles repeat once, because channel i is turned together with channel
    i + head_dim / 2.

    Args:
      grid: h and w, the number of patches along each axis.
      num_prefix: tokens before the patches, which are not turned.
      head_dim: channels of a head, a multiple of 4.

    Differs: the publisher's own files hold the periods rounded to bfloat16, and its code uses those. Here they are exact, as in
      timm and transformers. With `dinov3_s`, random weights and 14 × 14 patches, the features differ by 0.24 % of their norm.
    """
    rows, columns = (2 * (np.arange(count) + 0.5) / count - 1 for count in grid)
    at = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    periods = BASE ** (np.arange(head_dim // 4) / (head_dim // 4))
    angles = (2 * math.pi * at[:, :, None] / periods).reshape(len(at), head_dim // 2)
    angles = np.concatenate([np.zeros((num_prefix, head_dim // 2)), angles])
    angles = np.concatenate([angles, angles], axis=1)
    return np.cos(angles), np.sin(angles)


def rotate(x: Float[Array, "n t heads d"], tables: tuple[np.ndarray, np.ndarray]) -> Float[Array, "n t heads d"]:
    """Turn each pair of channels (i, i + d / 2) of queries or keys; computed in float32 at least.

    Args:
      x: queries or keys of all tokens.
      tables: cosines and sines, each (t, d); see `rotary_tables`.
    """
    kind = jnp.promote_types(x.dtype, jnp.float32)
    cos, sin = (jnp.asarray(table, kind)[:, None] for table in tables)
    first, second = jnp.split(x.astype(kind), 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    return (x.astype(kind) * cos + turned * sin).astype(x.dtype)
