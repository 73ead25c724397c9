"""How true confidences are: counts of right pixels by confidence, the expected calibration error, and the reliability diagram."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer

from pyrseg_jax.evaluation.temperature import scaled_log_probs

BINS = 15  # Source: Guo et al. 2017, Sec. 2
# Whole numbers are counted, so that sums are exact in any order. A part of a bin stands for its middle, so the mean confidence of a
# bin is off by at most 1 / 30,000.
PARTS = 1000


def count_confidences(
    counts: Int32[Array, "l b 2"],
    level: Int32[Array, "k"],
    confidence: Float[Array, "k"],
    is_right: Bool[Array, "k"],
    is_labeled: Bool[Array, "k"],
) -> Int32[Array, "l b 2"]:
    """Add some pixels to the counts.

    Args:
      counts: (L, BINS · PARTS, 2): by level and part of a bin, the labeled pixels, and those of them that are predicted rightly.
      level: (k,) the level that decides each pixel.
      confidence: (k,) in 0 … 1.
      is_right, is_labeled: (k,); pixels without label do not count.
    """
    num_parts = counts.shape[1]
    part = jnp.clip((confidence * num_parts).astype(jnp.int32), 0, num_parts - 1)
    at = jnp.where(is_labeled, 2 * (level * num_parts + part), counts.size)
    flat = counts.reshape(-1).at[at].add(1, mode="drop", wrap_negative_indices=False)
    at = jnp.where(is_right, at + 1, counts.size)
    return flat.at[at].add(1, mode="drop", wrap_negative_indices=False).reshape(counts.shape)


def count_choices(
    counts: Int32[Array, "v l b 2"],
    probs: Float[Array, "k c"],
    true: Int32[Array, "k"],
    is_labeled: Bool[Array, "k"],
    level: Int32[Array, "k"],
    temperatures: Float[Array, "v l"],
) -> tuple[Int32[Array, "v l b 2"], Float[Array, "v"]]:
    """Add some pixels to the counts of each choice of temperatures; also return the sums of -log p(true class)."""
    is_right = is_labeled & (probs.argmax(-1) == true)
    new, losses = [], []
    for before, choice in zip(counts, temperatures, strict=True):
        logs = scaled_log_probs(probs, choice[level])
        new.append(count_confidences(before, level, jnp.exp(logs.max(-1)), is_right, is_labeled))
        of_truth = jnp.take_along_axis(logs, jnp.minimum(true, probs.shape[-1] - 1)[:, None], axis=1)[:, 0]
        losses.append(-jnp.where(is_labeled, of_truth, 0).sum())
    return jnp.stack(new), jnp.stack(losses)


def no_confidences(num_levels: int) -> Int32[Array, "l b 2"]:
    """Return the counts of no pixels."""
    return jnp.zeros((num_levels, BINS * PARTS, 2), jnp.int32)


def summarize_confidences(counts: Integer[np.ndarray, "l b 2"]) -> dict:
    """Turn counts into scores.

    Args:
      counts: sums of `count_confidences`.

    Returns:
      A dict of
      ece: the expected calibration error: the mean over pixels of |accuracy - mean confidence| of their bins;
      level_ece: the same for the pixels of each level; None for a level that decides none;
      pixels: labeled pixels of each of the 15 bins of equal width;
      confidence, accuracy: mean confidence, and share of right pixels, of each bin; None for an empty one.
      Without a labeled pixel, `ece` is None.

    Source: Guo et al. 2017, Eq. (3).
    """
    levels = np.stack([_bins_of(level) for level in counts])
    pixels, right, sure = levels.sum(0).T
    return {
        "ece": _ece(levels.sum(0)),
        "level_ece": [_ece(level) for level in levels],
        "pixels": pixels.astype(np.int64).tolist(),
        "confidence": _ratios(sure, pixels),
        "accuracy": _ratios(right, pixels),
    }


def _bins_of(counts: Integer[np.ndarray, "b 2"]) -> Float[np.ndarray, "15 3"]:
    """Return the pixels of each bin, the right ones, and the sum of their confidences."""
    parts = counts.astype(np.float64).reshape(BINS, PARTS, 2)
    middle = ((np.arange(BINS * PARTS) + 0.5) / (BINS * PARTS)).reshape(BINS, PARTS)
    return np.stack([parts[..., 0].sum(1), parts[..., 1].sum(1), (parts[..., 0] * middle).sum(1)], axis=1)


def _ece(bins: Float[np.ndarray, "15 3"]) -> float | None:
    pixels, right, sure = bins.T
    return float(np.abs(right - sure).sum() / pixels.sum()) if pixels.any() else None


def _ratios(part: Float[np.ndarray, "15"], whole: Float[np.ndarray, "15"]) -> list[float | None]:
    return [float(p / w) if w else None for p, w in zip(part, whole, strict=True)]
