"""Geometry of the tree-pyramid: which strides form one, and how cells pass values to their children.

Source: Sec. 3.1, "Pyramid structure": each level has twice the resolution of the one above it and every cell has
exactly four children, except at the finest level.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer, Shaped

from pyrseg_jax.conventions import VOID, void_of

Array = jax.Array | np.ndarray  # the algebra accepts both and returns JAX arrays

DONT_CARE = VOID  # in targets: this level does not learn from this cell; see `dont_care_of`


def dont_care_of(classes: Integer[Array, "*n"]) -> int:
    """Return the value of "don't care" in targets: 255, or 65535 in those of more than 255 classes, which are uint16."""
    return void_of(classes.dtype)


def as_classes(labels: Integer[Array, "*n"]) -> Integer[Array, "*n"]:
    """Return labels as targets: in int32, or in uint16 where that is their type and says what void is."""
    return jnp.asarray(labels) if labels.dtype == jnp.uint16 else labels.astype(jnp.int32)


def check_strides(strides: Sequence[int]) -> tuple[int, ...]:
    """Return the strides as a tuple, or raise if they do not form a tree-pyramid.

    Raises:
      ValueError: if there are no strides, one is not positive, or two neighbors do not have the ratio 2 to 1.
    """
    strides = tuple(strides)
    if not strides:
        raise ValueError("strides is empty: a pyramid has at least one level, for example strides=(32, 16, 8, 4)")
    # The ratio has to be checked for every pair. If the last stride is positive, the ratios make the others positive, too.
    is_ratio_two = all(coarse == 2 * fine for coarse, fine in zip(strides[:-1], strides[1:], strict=True))
    if strides[-1] < 1 or not is_ratio_two:
        raise ValueError(
            f"strides={strides}: expected positive strides ordered coarse to fine, each twice the next, "
            "for example (32, 16, 8, 4)"
        )
    return strides


def check_divisible(height: int, width: int, strides: Sequence[int]) -> None:
    """Raise if an image cannot be cut into whole cells of the coarsest level.

    Raises:
      ValueError: with the size, the stride, and the nearest size that fits.
    """
    coarsest = strides[0]
    if height < 1 or width < 1 or height % coarsest or width % coarsest:
        fitting = tuple(nearest_multiple(side, coarsest) for side in (height, width))
        raise ValueError(
            f"a map of {height} × {width} pixels cannot be cut into cells of the coarsest stride {coarsest}: "
            f"resize or pad it to a multiple of {coarsest} on both sides, the nearest is {fitting[0]} × {fitting[1]}"
        )


def nearest_multiple(side: int, divisor: int) -> int:
    """Round a side to the nearest multiple of `divisor`, but at least to `divisor` itself; a tie rounds up.

    Source: Sec. 3.1: "otherwise, we resize the input RGB to the nearest divisible".
    """
    return max(divisor, (2 * side + divisor) // (2 * divisor) * divisor)


def to_children(cells: Shaped[Array, "n h w *c"], factor: int = 2) -> Shaped[Array, "n {factor}*h {factor}*w *c"]:
    """Copy each cell's value to its factor × factor descendants: the paper's Up(·), nearest by index."""
    return jnp.repeat(jnp.repeat(cells, factor, axis=1), factor, axis=2)
