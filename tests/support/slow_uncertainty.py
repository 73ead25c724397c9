"""Confidence, entropy, disagreement and doubt, position by position in float64, with nothing shared with the package."""

import numpy as np

from support import twins


def entropy(probs):
    """Return -Σ p log p over the last axis."""
    logs = np.log(probs, out=np.zeros_like(probs, np.float64), where=probs > 0)
    return -(probs * logs).sum(-1)


def disagreement(levels, unity):
    """Ask each position of the finest level for the cells above it: what they say, and how likely they decide.

    Args:
      levels: L maps (h_l, w_l, C) of probabilities, coarse → fine.
      unity: L - 1 maps (h_l, w_l) of unity probabilities.
    """
    height, width, num_classes = levels[-1].shape
    found = np.zeros((height, width))
    if min(len(levels), num_classes) < 2:
        return found
    for i, j in np.ndindex(height, width):
        left, said, weights = 1.0, [], []
        for index, level in enumerate(levels):
            at = i * len(level) // height, j * level.shape[1] // width
            is_unit = float(unity[index][at]) if index < len(unity) else 1.0
            said.append(level[at].astype(np.float64))
            weights.append(left * is_unit)
            left *= 1 - is_unit
        mean = sum(w * p for w, p in zip(weights, said, strict=True))
        found[i, j] = entropy(mean) - sum(w * entropy(p) for w, p in zip(weights, said, strict=True))
    return found / np.log(min(len(levels), num_classes))


def scaled(probs, temperature):
    """Return p^(1/T), so that the classes sum to 1; `temperature` broadcasts to all axes but the last."""
    power = np.maximum(np.asarray(probs, np.float64), np.finfo(np.float32).tiny) ** (
        1 / np.asarray(temperature)[..., None]
    )
    return power / power.sum(-1, keepdims=True)


def maps(fused, level, temperatures, size, truth=None):
    """Return (labels, confidence, entropy, doubt) of the pixels of an image of this size."""
    probs = twins.bilinear(fused, size)
    of_pixel = np.zeros(size, int)
    for i, j in np.ndindex(size):
        at = (int((i + 0.5) * len(level) / size[0]), int((j + 0.5) * level.shape[1] / size[1]))
        of_pixel[i, j] = level[at]
    p = scaled(probs, np.asarray(temperatures)[of_pixel])
    doubt = np.zeros(size)
    if truth is not None:
        for i, j in np.ndindex(size):
            if truth[i, j] < fused.shape[-1]:
                doubt[i, j] = np.log(p[i, j].max() / p[i, j, truth[i, j]])
    return probs.argmax(-1), p.max(-1), entropy(p) / np.log(fused.shape[-1]), doubt


def ece(confidence, is_right, bins=15):
    """Return the expected calibration error, bin by bin."""
    total = 0.0
    for b in range(bins):
        inside = (confidence >= b / bins) & ((confidence < (b + 1) / bins) | (b == bins - 1))
        if inside.any():
            total += inside.sum() * abs(is_right[inside].mean() - confidence[inside].mean())
    return total / len(confidence)
