"""Cross entropy with class weights and label smoothing."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer

from pyrseg_jax.pyramid.levels import Array
from pyrseg_jax.pyramid.losses import masked_cross_entropy
from pyrseg_jax.training.losses.positions import truth_of, weighted_mean, weights_of


def cross_entropy(
    logits: Float[Array, "n h w c"],
    classes: Integer[Array, "n h w"],
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, ""]:
    """Return the weighted mean of the cross entropy over the positions that have a class, or 0 if there are none.

    With weights w and smoothing ε, it is Σ w_y · l / Σ w_y over the positions, where y is the true class of a position and
    l = (1 - ε) · (-log p_y) + ε · mean over all classes c of (-log p_c).

    Args:
      logits: (N, h, w, C), any float type; the loss is computed in float32.
      classes: (N, h, w), 255 = don't care.
      class_weights: C numbers ≥ 0, of which only the ratios matter; None: all classes have the same weight.
      label_smoothing: ε, 0 … 1.

    Source: label smoothing: Szegedy et al. 2016, Sec. 7. The division by the sum of the weights is that of PyTorch's and
      mmsegmentation's cross entropy: weights change the share of each class in the loss, and not its size.
    Differs: PyTorch weights the smoothing by the class that it goes to; here the whole loss of a position has the weight of its
      true class, so that rare classes are not predicted everywhere.
    """
    if class_weights is None and not label_smoothing:
        return masked_cross_entropy(logits, classes)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    losses = -jnp.take_along_axis(log_probs, truth_of(classes), axis=-1)[..., 0]
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * log_probs.mean(-1)
    return weighted_mean(losses, weights_of(classes, class_weights))
