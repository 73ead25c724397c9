"""Focal loss: cross entropy that pays less attention to positions that are predicted well."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32, Integer

from pyrseg_jax.pyramid.levels import Array
from pyrseg_jax.training.losses.positions import truth_of, weighted_mean, weights_of

# Smallest 1 - p that is raised to a power: at 0, powers below 1 have an infinite slope.
TINY = 1e-30


def focal_loss(
    logits: Float[Array, "n h w c"],
    classes: Integer[Array, "n h w"],
    gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, ""]:
    """Return the weighted mean of (1 - p)^γ · (-log p) over the positions that have a class, or 0 if there are none.

    p is the probability of the true class of a position. With γ = 0 this is the cross entropy.

    Args:
      logits: (N, h, w, C), any float type; the loss is computed in float32.
      classes: (N, h, w), 255 = don't care.
      gamma: γ ≥ 0.
      class_weights: as for `cross_entropy`: the weights α of the paper.

    Source: Lin et al. 2017, Eqs. (4) and (5).
    Chosen: softmax instead of a sigmoid per class, because a position has one class. The mean over positions instead of the
      paper's mean over objects.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    of_truth = jnp.take_along_axis(log_probs, truth_of(classes), axis=-1)[..., 0]
    missing = jnp.maximum(-jnp.expm1(of_truth), TINY)
    return weighted_mean(missing**gamma * -of_truth, weights_of(classes, class_weights))


def unity_loss(logits: Float[Array, "n h w"], is_unit: Int32[Array, "n h w"], gamma: float = 0.0) -> Float[Array, ""]:
    """Return the mean binary focal loss of a level of the unity pyramid, or 0 if no cell counts; γ = 0: binary cross entropy.

    Args:
      logits: (N, h, w), any float type; the loss is computed in float32.
      is_unit: (N, h, w): 1 for a unit-cell, 0 for a mixed-cell, 255 = don't care.
      gamma: γ ≥ 0.

    Source: Eq. (1) for γ = 0; Lin et al. 2017, Eq. (4).
    """
    toward_truth = jnp.where(is_unit == 1, 1.0, -1.0) * logits.astype(jnp.float32)
    # log(1 - p) is log_sigmoid(-x): no probability is subtracted from 1.
    losses = -jax.nn.log_sigmoid(toward_truth) * jnp.exp(gamma * jax.nn.log_sigmoid(-toward_truth))
    return weighted_mean(losses, weights_of(is_unit, None))
