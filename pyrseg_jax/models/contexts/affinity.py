"""The affinity loss of CPNet (Yu et al. 2020): which positions of a map belong to one class."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, UInt8

from pyrseg_jax.models.contexts.contract import Outputs
from pyrseg_jax.pyramid import levels

_SMALLEST = float(np.finfo(np.float32).tiny)  # ratios below it count as it, so that their logarithm is finite


class Affinity(NamedTuple):
    """How a prior P fits the ideal affinity A, per row; A has a one where row and column have one class.

    Attributes:
      cross_entropy: mean binary cross entropy of the row.
      recall: ΣP A° / ΣA°, where A° is A without the position itself.
      specificity: Σ(1 - P)(1 - A) / Σ(1 - A).
      precision: ΣP A° / ΣP.
      has_partner: whether ΣA° > 0. Elsewhere recall and precision mean nothing.
      has_other: whether Σ(1 - A) > 0. Elsewhere specificity means nothing.
    """

    cross_entropy: Float[Array, "n r"]
    recall: Float[Array, "n r"]
    specificity: Float[Array, "n r"]
    precision: Float[Array, "n r"]
    has_partner: Bool[Array, "n r"]
    has_other: Bool[Array, "n r"]


def compare(
    logits: Float[Array, "n r c"], rows: Integer[Array, "n r"], columns: Integer[Array, "n c"], is_square: bool
) -> Affinity:
    """Compare a prior with the ideal affinity of labels.

    Args:
      logits: P is their sigmoid.
      rows: class of each row's position; void counts as a class.
      columns: class of each column's position.
      is_square: whether column i is the position of row i.
    """
    n, num_rows, num_columns = logits.shape
    logits = logits.astype(jnp.float32)
    # XLA computes A where it is read, in the loops that add up the rows, so that it is never in memory.
    is_same = rows[:, :, None] == columns[:, None, :]
    probs = jax.nn.sigmoid(logits)
    cross_entropy = jnp.mean(jax.nn.softplus(logits) - jnp.where(is_same, logits, 0), -1)
    total = probs.sum(-1)
    common = jnp.where(is_same, probs, 0).sum(-1)
    other = jnp.where(is_same, 0, jax.nn.sigmoid(-logits)).sum(-1)
    num_same = is_same.sum(-1)
    num_other = num_columns - num_same
    if is_square:
        common -= jnp.diagonal(probs, axis1=1, axis2=2)
        num_same -= 1
    return Affinity(
        cross_entropy,
        common / jnp.maximum(num_same, 1),
        other / jnp.maximum(num_other, 1),
        common / jnp.maximum(total, _SMALLEST),
        num_same > 0,
        num_other > 0,
    )


def affinity_loss(outputs: Outputs, labels: UInt8[levels.Array, "n H W"], supervision: str) -> Float[levels.Array, ""]:
    """Return the affinity loss: cross entropy of the prior plus the logarithms of recall, specificity and precision.

    The supervision does not matter: labels are sampled at the positions of the prior.

    Args:
      outputs: `prior` are logits (N, h, w, side²) whose sigmoid is the prior of the positions of a map (rows) and those of the
        training map (columns).
      labels: (N, H, W) train ids, 255 = void, which counts as a class of its own.
      supervision: unused.

    Source: Yu et al. 2020, Eq. (2) to (6); the public code of ContextPrior.
    Differs: rows without a partner are left out of the means of recall and precision, and rows without another class out of that of
      specificity. In the release each costs 100, whatever the prior is.
    Chosen: labels are sampled at the centers of the positions, as everywhere here; the release takes the corners.
    """
    prior = outputs["prior"]
    n, h, w, num_columns = prior.shape
    side = int(num_columns**0.5)
    rows, columns = (_sample(jnp.asarray(labels), size).reshape(n, -1) for size in ((h, w), (side, side)))

    # The backward pass computes the loops over rows × columns again instead of keeping their results.
    @jax.checkpoint
    def compare_again(logits: Array) -> Affinity:
        return compare(logits, rows, columns, is_square=(h, w) == (side, side))

    found = compare_again(prior.reshape(n, h * w, num_columns))
    return (
        found.cross_entropy.mean()
        + _mean_log(found.recall, found.has_partner)
        + _mean_log(found.specificity, found.has_other)
        + _mean_log(found.precision, found.has_partner)
    )


def _sample(labels: UInt8[Array, "n H W"], size: tuple[int, int]) -> UInt8[Array, "n h w"]:
    """Return the labels at the centers of the positions of a smaller map."""
    rows, columns = ((2 * np.arange(to) + 1) * fro // (2 * to) for to, fro in zip(size, labels.shape[1:], strict=True))
    return labels[:, rows][:, :, columns]


def _mean_log(ratios: Float[Array, "n r"], is_counted: Bool[Array, "n r"]) -> Float[Array, ""]:
    """Return the mean of -log over the counted ratios, or 0 if none is."""
    logs = -jnp.log(jnp.clip(jnp.where(is_counted, ratios, 1), _SMALLEST, 1))
    return logs.sum() / jnp.maximum(is_counted.sum(), 1)
