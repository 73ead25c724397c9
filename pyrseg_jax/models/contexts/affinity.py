"""The affinity loss of CPNet (Yu et al. 2020): which positions of a map belong to one class."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, UInt8

from pyrseg_jax.models.contexts.contract import Outputs
from pyrseg_jax.pyramid import levels

_SMALLEST = float(np.finfo(np.float32).tiny)  # sums below it count as it, so that their logarithm is finite


class Affinity(NamedTuple):
    """Sums over each row of a prior P and of the ideal affinity A, which has a one where row and column have one class.

    A° is A without the position itself. Where a row has no partner, recall and precision mean nothing; where it has only one class,
    specificity means nothing.

    Attributes:
      cross_entropy: mean binary cross entropy of the row.
      within: ΣP A°.
      outside: Σ(1 - P)(1 - A).
      total: ΣP.
      num_partners: ΣA°.
      num_others: Σ(1 - A).
    """

    cross_entropy: Float[Array, "n r"]
    within: Float[Array, "n r"]
    outside: Float[Array, "n r"]
    total: Float[Array, "n r"]
    num_partners: Int32[Array, "n r"]
    num_others: Int32[Array, "n r"]

    def recall_loss(self) -> Float[Array, ""]:
        """Return the mean of -log(ΣP A° / ΣA°)."""
        return _mean_log_ratio(self.num_partners, self.within, self.num_partners > 0)

    def specificity_loss(self) -> Float[Array, ""]:
        """Return the mean of -log(Σ(1 - P)(1 - A) / Σ(1 - A))."""
        return _mean_log_ratio(self.num_others, self.outside, self.num_others > 0)

    def precision_loss(self) -> Float[Array, ""]:
        """Return the mean of -log(ΣP A° / ΣP)."""
        return _mean_log_ratio(self.total, self.within, self.num_partners > 0)


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
    logits = logits.astype(jnp.float32)
    # XLA computes A where it is read, in the loops that add up the rows, so that it is never in memory.
    is_same = rows[:, :, None] == columns[:, None, :]
    is_partner = is_same & ~jnp.eye(rows.shape[1], dtype=bool) if is_square else is_same
    probs = jax.nn.sigmoid(logits)
    return Affinity(
        jnp.mean(jax.nn.softplus(logits) - jnp.where(is_same, logits, 0), -1),
        jnp.where(is_partner, probs, 0).sum(-1),
        jnp.where(is_same, 0, jax.nn.sigmoid(-logits)).sum(-1),
        probs.sum(-1),
        is_partner.sum(-1),
        (~is_same).sum(-1),
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
    return found.cross_entropy.mean() + found.recall_loss() + found.specificity_loss() + found.precision_loss()


def _sample(labels: UInt8[Array, "n H W"], size: tuple[int, int]) -> UInt8[Array, "n h w"]:
    """Return the labels at the centers of the positions of a smaller map."""
    rows, columns = ((2 * np.arange(to) + 1) * fro // (2 * to) for to, fro in zip(size, labels.shape[1:], strict=True))
    return labels[:, rows][:, :, columns]


def _mean_log_ratio(whole: Array, part: Float[Array, "n r"], is_counted: Bool[Array, "n r"]) -> Float[Array, ""]:
    """Return the mean of log(whole / part) over the counted rows, or 0 if none is counted."""
    # As a difference: the derivative of the ratio would hold the square of a number that may be tiny.
    logs = [jnp.log(jnp.maximum(jnp.where(is_counted, x, 1), _SMALLEST)) for x in (whole.astype(jnp.float32), part)]
    return (logs[0] - logs[1]).sum() / jnp.maximum(is_counted.sum(), 1)
