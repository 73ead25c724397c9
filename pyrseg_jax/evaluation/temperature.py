"""Temperature scaling: one number per level that makes confidences true and leaves every label as it is.

The probabilities q of a pixel become p(c) ∝ q(c)^(1/T), where T is the temperature of the level that decides the pixel. T > 1
makes a network less sure, T < 1 more. The order of the classes stays, so the most likely class does, too.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int32

# 1 / T at which the slope of the loss is measured: T from 16 to 1/8, neighbors 19 % apart.
INVERSES = np.geomspace(1 / 16, 8, 29)
SMALLEST = float(np.finfo(np.float32).tiny)  # probabilities below it count as this one, so that logarithms are finite
_BISECTIONS = 60


def scaled_log_probs(probs: Float[Array, "k c"], temperature: Float[Array, "k"]) -> Float[Array, "k c"]:
    """Return the logarithms of the scaled probabilities of some pixels.

    Args:
      probs: (k, C) probabilities, interpolated and averaged over the views.
      temperature: (k,) T of each pixel.

    Source: Guo et al. 2017, Sec. 4.2, which divides the logits z of a network by T: softmax(z / T) ∝ softmax(z)^(1/T).
    Chosen: T is applied to what the pixel gets in the end, after levels are fused, interpolated and averaged over views. Applied to
      the logits of the cells, it would change labels between two cells. At the center of a cell, both are the same.
    """
    return jax.nn.log_softmax(jnp.log(jnp.maximum(probs, SMALLEST)) / temperature[:, None])


def slopes_of_loss(
    probs: Float[Array, "k c"], true: Int32[Array, "k"], level: Int32[Array, "k"], num_levels: int
) -> Float[Array, "{num_levels} g 2"]:
    """Return the first two derivatives of the loss of each level with respect to 1 / T, at the G values `INVERSES`.

    The loss is the sum of -log p(true class) over the labeled pixels that the level decides. It is a convex function of b = 1 / T:
    with E_b and Var_b over the classes of a pixel,

      dLoss/db = Σ E_b[log q] - log q(true),    d²Loss/db² = Σ Var_b[log q].

    Sums over pixels, images and processes can be added up, so one pass over a data set finds the temperatures of all levels.

    Args:
      probs: (k, C) probabilities.
      true: (k,) train ids; those of C and above are void.
      level: (k,) the level that decides each pixel.
      num_levels: L.
    """
    num_classes = probs.shape[-1]
    logs = jnp.log(jnp.maximum(probs, SMALLEST))
    weight = jax.nn.one_hot(level, num_levels) * (true < num_classes)[:, None]
    of_truth = jnp.take_along_axis(logs, jnp.minimum(true, num_classes - 1)[:, None], axis=1)

    def at(inverse: Float[Array, ""]) -> Float[Array, "l 2"]:
        scaled = jax.nn.softmax(inverse * logs)
        mean = (scaled * logs).sum(-1, keepdims=True)
        variance = (scaled * (logs - mean) ** 2).sum(-1, keepdims=True)
        slopes = jnp.concatenate([mean - of_truth, variance], axis=1)
        return (weight[:, :, None] * slopes[:, None, :]).sum(0)

    return jax.lax.map(at, jnp.asarray(INVERSES, jnp.float32)).transpose(1, 0, 2)


def fit_temperatures(slopes: Float64[np.ndarray, "l g 2"]) -> tuple[float, ...]:
    """Return the temperature of each level at which its loss is smallest.

    The slope rises with 1 / T. Between the two values of `INVERSES` where it changes its sign, a cubic with the known slopes and
    curvatures stands for it. The temperature stays within 1/8 … 16. A level that decides no labeled pixel has 1.

    Args:
      slopes: sums of `slopes_of_loss`.
    """
    return tuple(_fit(level) for level in slopes)


def _fit(level: Float64[np.ndarray, "g 2"]) -> float:
    slope, curvature = level.T
    if not level.any():
        return 1.0
    after = int(np.argmax(slope >= 0)) if (slope >= 0).any() else len(slope)
    if after in (0, len(slope)):
        return float(1 / INVERSES[min(after, len(slope) - 1)])
    before, width = after - 1, INVERSES[after] - INVERSES[after - 1]

    def cubic(t: float) -> float:  # Hermite's, at a share t of the interval
        s = 1 - t
        return (
            s * s * (1 + 2 * t) * slope[before]
            + t * t * (1 + 2 * s) * slope[after]
            + width * t * s * (s * curvature[before] - t * curvature[after])
        )

    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if cubic(middle) < 0 else (low, middle)
    return float(1 / (INVERSES[before] + low * width))
