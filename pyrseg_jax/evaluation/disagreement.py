"""How much the levels of a pyramid disagree about the class of a position: a signal that one pass of the network gives for free."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pyrseg_jax.evaluation.predict import Prediction
from pyrseg_jax.pyramid.levels import to_children


def entropy(probs: Float[Array, "*k c"]) -> Float[Array, "*k"]:
    """Return -Σ p log p over the last axis, in nats; 0 · log 0 is 0."""
    return -jnp.where(probs > 0, probs * jnp.log(jnp.where(probs > 0, probs, 1)), 0).sum(-1)


def disagreement_of(prediction: Prediction) -> Float[Array, "n h w"]:
    """Return how much the levels disagree at each position of the finest level, from 0 (not at all) to 1.

    The unity pyramid gives the probability w_l that level l decides a position: that its cell is a unit-cell, and no cell above it
    is. With u_l, the unity probability of the position's cell at level l = 1 … L-1, coarse → fine:

      w_l = u_l Π_{k<l} (1 - u_k),    w_L = Π_{k<L} (1 - u_k)

    With the class probabilities p_l of the levels, the disagreement is the mutual information of the deciding level and the class,

      D = (H(Σ_l w_l p_l) - Σ_l w_l H(p_l)) / log min(L, C),

    which is also the Jensen-Shannon divergence of the levels with weights w. It is large where it is open which level decides, and
    the answer depends on it. A single level or class cannot disagree: 0.

    Source: Lin 1991, Eq. (5.1), for the divergence.
    Chosen: the weights. With equal weights, levels count that were never trained on such cells: a coarse level has learned nothing
      about cells of several classes.
    """
    num_levels, num_classes = len(prediction.probs), prediction.fused.shape[-1]
    height, most = prediction.level.shape[1], min(num_levels, num_classes)
    if most < 2:
        return jnp.zeros(prediction.level.shape)
    is_open = jnp.ones(prediction.level.shape)
    mean, spread = jnp.zeros(()), jnp.zeros(())
    for index, probs in enumerate(prediction.probs):
        factor = height // probs.shape[1]
        weight = is_open
        if index < num_levels - 1:
            unity = to_children(prediction.unity[index], factor)
            weight, is_open = is_open * unity, is_open * (1 - unity)
        mean += weight[..., None] * to_children(probs, factor)
        spread += weight * to_children(entropy(probs), factor)
    return jnp.clip((entropy(mean) - spread) / jnp.log(most), 0, 1)  # rounding may lead a little below 0
