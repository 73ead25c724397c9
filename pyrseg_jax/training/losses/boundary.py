"""Boundary loss: the cross entropy of the positions near the border of two classes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from pyrseg_jax.pyramid.levels import Array, dont_care_of
from pyrseg_jax.training.losses.cross_entropy import cross_entropy


def boundary_loss(
    logits: Float[Array, "n h w c"],
    classes: Integer[Array, "n h w"],
    labels: Integer[Array, "n h w"],
    distance: int,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, ""]:
    """Return the mean cross entropy over the positions near a border of two classes, or 0 if there are none.

    Beside the cross entropy of all positions, this raises the weight of those near borders.

    Args:
      logits: (N, h, w, C), any float type; the loss is computed in float32.
      classes: (N, h, w), 255 = don't care: the positions to learn from.
      labels: (N, h, w), 255 = void: all classes, in which borders are looked for. A position that a coarser level has taken is
        don't care in `classes`, and its border is still one.
      distance: how far from a border, in positions; see `near_border`.
      class_weights, label_smoothing: as for `cross_entropy`.

    Chosen: this instead of distance maps (Kervadec et al. 2019), of which there is one per class and image, computed before the
      step, and none for void. Here, a border is the same thing as in the evaluation (`evaluation.boundary`), whose mIoU near
      boundaries this loss is for.
    """
    near = jnp.where(near_border(labels, distance), classes, dont_care_of(classes))
    return cross_entropy(logits, near, class_weights, label_smoothing)


def near_border(labels: Integer[Array, "n h w"], distance: int) -> Bool[Array, "n h w"]:
    """Return which positions lie within `distance` (Chebyshev distance) of a border position.

    A border position has a class, and so has a neighbor above, below, left or right, but another one. Void forms no border.
    """
    is_labeled = labels != dont_care_of(labels)
    is_border = jnp.zeros(labels.shape, bool)
    for axis in (1, 2):
        first, second = (
            jax.lax.slice_in_dim(labels, start, labels.shape[axis] - 1 + start, axis=axis) for start in (0, 1)
        )
        both = [jax.lax.slice_in_dim(is_labeled, start, labels.shape[axis] - 1 + start, axis=axis) for start in (0, 1)]
        differs = (first != second) & both[0] & both[1]
        before, after = [(0, 0)] * 3, [(0, 0)] * 3
        before[axis], after[axis] = (1, 0), (0, 1)
        is_border |= jnp.pad(differs, before) | jnp.pad(differs, after)
    side, around = 2 * distance + 1, (distance, distance)
    ones, padding = (1, 1, 1), ((0, 0), around, around)
    dilated = jax.lax.reduce_window(
        is_border.astype(jnp.int32), jnp.int32(0), jax.lax.max, (1, side, side), ones, padding
    )
    return dilated > 0
