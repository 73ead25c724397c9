"""Hard example mining: which positions to learn from."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from pyrseg_jax.pyramid.levels import Array, dont_care_of


def ohem_targets(
    logits: Float[Array, "n h w c"], classes: Integer[Array, "n h w"], threshold: float, min_kept: int
) -> Integer[Array, "n h w"]:
    """Online hard example mining (OHEM): set easy positions to don't care.

    A position is hard, and kept, if the probability of its true class is below `threshold`. If fewer than `min_kept`
    positions of the whole batch are hard, the `min_kept` hardest ones are kept instead. Under `jit` with a sharded batch,
    the whole batch means all devices. No gradient flows through the choice.

    Args:
      logits: (N, h, w, C).
      classes: (N, h, w), 255 = don't care; these positions are neither counted nor kept.
      threshold: a probability, 0 … 1.
      min_kept: number of positions to keep at least; if fewer have a class, all of these are kept.

    Returns:
      `classes`, with 255 at every position that is not kept.

    Source: Shrivastava et al. 2016, as in HRNet's segmentation code.
    Differs: that code drops the position at rank `min_kept` together with the easier ones; here it is kept, and so are all
      positions that are as hard.
    """
    is_labeled = classes != dont_care_of(classes)
    truth = jnp.where(is_labeled, classes, 0)[..., None]
    log_probs = jax.nn.log_softmax(jax.lax.stop_gradient(logits).astype(jnp.float32))
    probs = jnp.exp(jnp.take_along_axis(log_probs, truth, axis=-1)[..., 0])
    is_hard = is_labeled & (probs < threshold)
    is_kept = jax.lax.cond(
        is_hard.sum() >= jnp.minimum(min_kept, is_labeled.sum()),
        lambda: is_hard,
        lambda: is_labeled & (probs <= kth_smallest(probs, is_labeled, min_kept)),
    )
    return jnp.where(is_kept, classes, dont_care_of(classes))


def kth_smallest(values: Float[Array, "n h w"], is_counted: Bool[Array, "n h w"], k: int) -> Float[Array, ""]:
    """Return the k-th smallest of the counted values, or the largest if fewer than k are counted; values must be ≥ 0.

    Non-negative floats have the same order as their bit patterns, so bisection over the bits finds the value in 31 counts.
    A sort would be slower and would have to gather a sharded batch on one device (`benchmarks/hard_examples.py`).
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    rank = jnp.minimum(k, is_counted.sum())

    def narrow(_, bounds):
        low, high = bounds  # the answer is in (low, high]
        middle = low + (high - low) // 2
        is_enough = (is_counted & (bits <= middle)).sum() >= rank
        return jnp.where(is_enough, low, middle), jnp.where(is_enough, middle, high)

    # From -1 to the bits of +∞ (0x7F800000) there are 2^31 - 2^23 + 1 candidates, so 31 halvings are enough.
    _, found = jax.lax.fori_loop(0, 31, narrow, (jnp.int32(-1), jnp.int32(0x7F800000)))
    return jax.lax.bitcast_convert_type(found, jnp.float32)
