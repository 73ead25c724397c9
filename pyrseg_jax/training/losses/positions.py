"""Means over the positions of a map that have a class."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Float, Integer

from pyrseg_jax.pyramid.levels import Array, dont_care_of


def truth_of(classes: Integer[Array, "n h w"]) -> Integer[Array, "n h w 1"]:
    """Return the classes as indices for `take_along_axis`; positions without a class get 0, and must be masked afterwards.

    Replace the class *before* the loss: 255 is not an index of the logits, so the loss would be NaN, and NaN · 0 is NaN.
    """
    return jnp.where(classes == dont_care_of(classes), 0, classes)[..., None]


def weights_of(classes: Integer[Array, "n h w"], class_weights: Sequence[float] | None) -> Float[Array, "n h w"]:
    """Return the weight of each position: that of its class, or 1 if there are no weights; 0 where there is no class."""
    is_cared = classes != dont_care_of(classes)
    if class_weights is None:
        return is_cared.astype(jnp.float32)
    weights = jnp.asarray(class_weights, jnp.float32)
    return jnp.where(is_cared, weights[truth_of(classes)[..., 0]], 0.0)


def weighted_mean(values: Float[Array, "n h w"], weights: Float[Array, "n h w"]) -> Float[Array, ""]:
    """Return the mean of values with weights ≥ 0, or 0 if all weights are 0; a value of weight 0 has no gradient."""
    total = weights.sum()
    return (jnp.where(weights > 0, values, 0.0) * weights).sum() / jnp.where(total > 0, total, 1.0)
