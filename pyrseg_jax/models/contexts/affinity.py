"""The affinity loss of CPNet (Yu et al. 2020): which positions of a map belong to one class."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def compare(
    logits: Float[Array, "n r c"], rows: Integer[Array, "n r"], columns: Integer[Array, "n c"], is_square: bool
) -> Affinity:
    """Compare a prior with the ideal affinity of labels, in float32.

    There are as many pairs of positions as numbers in the prior. So one loop over the logits adds up all sums, one computes the
    gradient, and A is never in memory. XLA:CPU still keeps P and 1 - P between the two loops.

    Args:
      logits: P is their sigmoid.
      rows: class of each row's position; void counts as a class.
      columns: class of each column's position.
      is_square: whether column i is the position of row i.
    """
    logits = logits.astype(jnp.float32)
    is_same, is_partner = _ideal(rows, columns, is_square)
    terms = (
        jax.nn.softplus(logits) - jnp.where(is_same, logits, 0),
        jnp.where(is_partner, jax.nn.sigmoid(logits), 0),
        jnp.where(is_same, 0, jax.nn.sigmoid(-logits)),
        jax.nn.sigmoid(logits),
        is_partner.astype(jnp.int32),
        (~is_same).astype(jnp.int32),
    )
    # One reduction of six operands: XLA would keep everything that several reductions share in memory.
    zeros = tuple(jnp.zeros((), term.dtype) for term in terms)
    sums = jax.lax.reduce(terms, zeros, lambda xs, ys: tuple(x + y for x, y in zip(xs, ys, strict=True)), (2,))
    return Affinity(sums[0] / logits.shape[-1], *sums[1:])


def _ideal(
    rows: Integer[Array, "n r"], columns: Integer[Array, "n c"], is_square: bool
) -> tuple[Bool[Array, "n r c"], Bool[Array, "n r c"]]:
    """Return A and A°."""
    is_same = rows[:, :, None] == columns[:, None, :]
    return is_same, is_same & ~jnp.eye(rows.shape[1], dtype=bool) if is_square else is_same


def _forward(logits, rows, columns, is_square: bool):
    return compare(logits, rows, columns, is_square), (logits, rows, columns)


def _backward(is_square: bool, residuals, cotangents: Affinity):
    """Return the gradient of the logits: every sum is one of P or of 1 - P, whose derivatives are ±P(1 - P)."""
    logits, rows, columns = residuals
    is_same, is_partner = _ideal(rows, columns, is_square)
    probs = jax.nn.sigmoid(logits.astype(jnp.float32))
    within, outside, total, cross_entropy = (
        gradient[..., None]
        for gradient in (cotangents.within, cotangents.outside, cotangents.total, cotangents.cross_entropy)
    )
    of_probs = total + jnp.where(is_partner, within, 0) - jnp.where(is_same, 0, outside)
    gradient = of_probs * probs * jax.nn.sigmoid(-logits.astype(jnp.float32))
    gradient += cross_entropy / logits.shape[-1] * (probs - is_same)
    return gradient.astype(logits.dtype), None, None


compare.defvjp(_forward, _backward)


def affinity_loss(
    outputs: Outputs, labels: Integer[levels.Array, "n H W"], supervision: str
) -> Float[levels.Array, ""]:
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

    logits = prior.reshape(n, h * w, num_columns)
    found: Affinity = compare(logits, rows, columns, (h, w) == (side, side))  # pyright: ignore[reportAssignmentType]
    return found.cross_entropy.mean() + found.recall_loss() + found.specificity_loss() + found.precision_loss()


def _sample(labels: Integer[Array, "n H W"], size: tuple[int, int]) -> Integer[Array, "n h w"]:
    """Return the labels at the centers of the positions of a smaller map."""
    rows, columns = ((2 * np.arange(to) + 1) * fro // (2 * to) for to, fro in zip(size, labels.shape[1:], strict=True))
    return labels[:, rows][:, :, columns]


def _mean_log_ratio(whole: Array, part: Float[Array, "n r"], is_counted: Bool[Array, "n r"]) -> Float[Array, ""]:
    """Return the mean of log(whole / part) over the counted rows, or 0 if none is counted."""
    # As a difference: the derivative of the ratio would hold the square of a number that may be tiny.
    logs = [jnp.log(jnp.maximum(jnp.where(is_counted, x, 1), _SMALLEST)) for x in (whole.astype(jnp.float32), part)]
    return (logs[0] - logs[1]).sum() / jnp.maximum(is_counted.sum(), 1)
