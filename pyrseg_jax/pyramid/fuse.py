"""The fuser: combine both pyramids into one semantic map (Eq. 2)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float, Int32

from pyrseg_jax.pyramid import levels
from pyrseg_jax.pyramid.levels import Array


class Fused(NamedTuple):
    """The fused prediction at the resolution of the finest level.

    Attributes:
      probs: (N, h, w, C) class probabilities.
      level: (N, h, w) int32, the index of the level that decided each position; 0 is the coarsest.
    """

    probs: Float[Array, "n h w c"]
    level: Int32[Array, "n h w"]


def fuse(
    semantic_probs: Sequence[Float[Array, "n _ _ c"]],
    unity_probs: Sequence[Float[Array, "n _ _"]],
    threshold: float = 0.5,
) -> Fused:
    """Take, at each position, the coarsest level whose cell is predicted to be a unit-cell, or else the finest level.

    Args:
      semantic_probs: L maps (N, h_l, w_l, C) of class probabilities, coarse → fine, each twice the size of the one before. The
        finest one, where it was refined, may be 4, 8, … times as large.
      unity_probs: L-1 maps (N, h_l, w_l) of probabilities that a cell is a unit-cell.
      threshold: τ. A cell with at least this probability counts as a unit-cell.

    Raises:
      ValueError: if the shapes of the maps do not form pyramids.

    Source: Eq. (2). A cell's value is shared by all its descendants (nearest upsampling by index).
    Chosen: probabilities are fused, not classes: they are upsampled to the size of the image before the argmax.
    """
    _check_pyramids([s.shape for s in semantic_probs], [u.shape for u in unity_probs])
    probs = semantic_probs[0]
    level = jnp.zeros(probs.shape[:-1], jnp.int32)
    # True where no level has taken the cell so far: the product in Eq. (2), carried from level to level.
    is_open = jnp.ones(probs.shape[:-1], bool)
    for index, (finer, unity) in enumerate(zip(semantic_probs[1:], unity_probs, strict=True), 1):
        factor = finer.shape[1] // probs.shape[1]
        is_open = levels.to_children(is_open & (unity < threshold), factor)
        probs = jnp.where(is_open[..., None], finer, levels.to_children(probs, factor))
        level = jnp.where(is_open, index, levels.to_children(level, factor))
    return Fused(probs, level)


def _check_pyramids(semantic: list[tuple], unity: list[tuple]) -> None:
    if not semantic or any(len(shape) != 4 for shape in semantic):
        raise ValueError(f"semantic_probs have shapes {semantic}: expected at least one map (N, h, w, C)")
    n, h, w, c = semantic[0]
    expected = [(n, h << level, w << level, c) for level in range(len(semantic))]
    times = max(1, semantic[-1][1] // expected[-1][1])  # by which a refined finest level is larger
    is_refined = len(semantic) > 1 and semantic[-1] == (n, times * expected[-1][1], times * expected[-1][2], c)
    if semantic != expected and not (semantic[:-1] == expected[:-1] and is_refined and times & (times - 1) == 0):
        raise ValueError(
            f"semantic_probs have shapes {semantic}: each level must have twice the height and width of the one before "
            f"it and the same N and C, that is {expected}; only the finest may be 4, 8, … times as large"
        )
    if unity != [shape[:-1] for shape in expected[:-1]]:
        raise ValueError(f"unity_probs have shapes {unity}: expected {[shape[:-1] for shape in expected[:-1]]}")
