"""Online hard example mining: positions that are already easy become don't care."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from pyrseg_jax.pyramid.levels import DONT_CARE


def ohem_targets(
    logits: Float[Array, "n h w c"], classes: Int32[Array, "n h w"], threshold: float, min_kept: int
) -> Int32[Array, "n h w"]:
    """Set positions to don't care whose true class is predicted well enough, but keep at least the hardest ones.

    Kept is a position whose true class has a probability below `threshold`, or one of the `min_kept` lowest of the whole
    batch (under `jit` with a sharded batch, over all devices). No gradient flows through the choice.

    Args:
      logits: (N, h, w, C).
      classes: (N, h, w), 255 = don't care; such positions are neither counted nor kept.
      threshold: a probability.
      min_kept: how many positions to keep at least, or all if there are fewer.

    Source: Shrivastava et al. 2016, as in HRNet's segmentation code.
    Differs: there the position at rank `min_kept` is dropped together with the easier ones; here it is kept, and so are all
      those as hard as it.
    """
    is_cared = classes != DONT_CARE
    truth = jnp.where(is_cared, classes, 0)[..., None]
    log_probs = jax.nn.log_softmax(jax.lax.stop_gradient(logits).astype(jnp.float32))
    probs = jnp.exp(jnp.take_along_axis(log_probs, truth, axis=-1)[..., 0])
    is_hard = is_cared & (probs < threshold)
    is_kept = jax.lax.cond(
        is_hard.sum() >= jnp.minimum(min_kept, is_cared.sum()),
        lambda: is_hard,
        lambda: is_cared & (probs <= kth_smallest(probs, is_cared, min_kept)),
    )
    return jnp.where(is_kept, classes, DONT_CARE)


def kth_smallest(values: Float[Array, "n h w"], is_counted: Bool[Array, "n h w"], k: int) -> Float[Array, ""]:
    """Return the k-th smallest of the values that are counted, or the largest if there are fewer; values are ≥ 0.

    By bisection on their bits, which are ordered as the numbers are: 31 counts instead of a sort, which would also have to
    bring a sharded batch together (`benchmarks/hard_examples.py`).
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    rank = jnp.minimum(k, is_counted.sum())

    def narrow(_, bounds):
        low, high = bounds  # the answer is in (low, high]
        middle = low + (high - low) // 2
        is_enough = (is_counted & (bits <= middle)).sum() >= rank
        return jnp.where(is_enough, low, middle), jnp.where(is_enough, middle, high)

    # From -1 to the bits of +∞ there are 2^31 - 2^23 + 1 candidates.
    _, found = jax.lax.fori_loop(0, 31, narrow, (jnp.int32(-1), jnp.int32(0x7F800000)))
    return jax.lax.bitcast_convert_type(found, jnp.float32)
