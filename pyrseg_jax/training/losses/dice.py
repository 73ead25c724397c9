"""Dice loss: the overlap of prediction and truth per class, in which small classes count as much as large ones."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer

from pyrseg_jax.pyramid.levels import Array, dont_care_of


def dice_loss(logits: Float[Array, "n h w c"], classes: Integer[Array, "n h w"]) -> Float[Array, ""]:
    """Return the mean of 1 - Dice over the classes that the batch shows, or 0 if nothing is labeled.

    The Dice coefficient of a class is 2 · Σ p · y / (Σ p + Σ y), where p is its probability and y is 1 at its positions. The sums
    run over all labeled positions of the whole batch; under `jit` with a sharded batch, over all devices.

    Args:
      logits: (N, h, w, C), any float type; the loss is computed in float32.
      classes: (N, h, w), 255 = don't care; such positions are in none of the sums.

    Source: Milletari et al. 2016; Drozdzal et al. 2016 for sums without squares.
    Chosen: one coefficient per class and batch, since the sums of one image may hold few pixels of a class. A class that the batch
      does not show has no coefficient: its best value would be 1 - 0 / 0.
    """
    is_cared = (classes != dont_care_of(classes))[..., None]
    probs = jnp.where(is_cared, jax.nn.softmax(logits.astype(jnp.float32)), 0.0)
    truth = jax.nn.one_hot(classes, logits.shape[-1], dtype=jnp.float32)  # all zeros for don't care, which is no class
    overlap, predicted, labeled = (x.sum((0, 1, 2)) for x in (probs * truth, probs, truth))
    is_shown = labeled > 0
    losses = jnp.where(is_shown, 1 - 2 * overlap / jnp.where(is_shown, predicted + labeled, 1.0), 0.0)
    return losses.sum() / jnp.maximum(is_shown.sum(), 1)
