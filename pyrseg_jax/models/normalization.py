"""Batch normalization, with the ReLU that may follow it, and its gradient in closed form."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Shaped

from pyrseg_jax.models.xla_cpu import channel_sums

MOMENTUM = 0.9  # share of the old running statistic that each step keeps (Flax's sense; PyTorch calls this 0.1)
EPSILON = 1e-5  # added to the variance; PyTorch's default, and that of most networks
# A normalization whose variables include this name in this collection is frozen: training uses its running statistics, too.
FROZEN, STATISTICS = "frozen", "statistics"


class BatchNorm(nn.Module):
    """Normalize each channel over (N, H, W), scale and shift it, and apply a ReLU if `is_active`.

    In training, mean and variance are those of the batch, and they also move the running statistics; otherwise, and where the
    normalization is frozen (see `FROZEN`), they are the running statistics. They are computed and kept in float32 at least. Under
    `jit` with a sharded batch they are those of the global batch.

    With a mask, only its positions count for the statistics, and all others become 0, after the shift, too. If the mask is empty,
    the running statistics stay as they are.

    Attributes:
      is_active: whether a ReLU follows.
      dtype: number format of the result.
      scale_init: initializer of the scale; by default, ones.
      epsilon: added to the variance. Some families of networks have another than most.

    Differs: the running variance is the biased one (divided by n); PyTorch keeps the unbiased one.
    """

    is_active: bool = False
    dtype: DTypeLike = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    epsilon: float = EPSILON

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, mask: Bool[Array, "n h w"] | None = None
    ) -> Float[Array, "n h w c"]:
        channels = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", self.scale_init, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        x = x.astype(self.dtype)
        if not train or self.has_variable(FROZEN, STATISTICS):
            y = _normalize(x, scale, bias, running_mean.value, running_var.value, self.is_active, self.epsilon)
            return y if mask is None else jnp.where(mask[..., None], y, 0)
        momentum = MOMENTUM
        if mask is None:
            y, mean, var = normalize_by_batch(x, scale, bias, self.is_active, self.epsilon)  # pyright: ignore[reportGeneralTypeIssues]  # jax's decorator
        else:
            y, mean, var = _normalize_masked(x, scale, bias, self.is_active, mask, self.epsilon)
            momentum = jnp.where(mask.any(), MOMENTUM, 1)
        if not self.is_initializing():
            running_mean.value = momentum * running_mean.value + (1 - momentum) * mean
            running_var.value = momentum * running_var.value + (1 - momentum) * var
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize_by_batch(
    x: Float[Array, "n h w c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
    is_active: bool,
    epsilon: float = EPSILON,
) -> tuple[Float[Array, "n h w c"], Float[Array, "c"], Float[Array, "c"]]:
    """Normalize by the batch's own statistics.

    Args:
      x: (N, H, W, C).
      scale, bias: (C,), applied after the normalization.
      is_active: apply a ReLU at the end.
      epsilon: added to the variance.

    Returns:
      The normalized map, and the mean and the (biased) variance of each channel. Gradients flow through the map alone; the two
      statistics are treated as constants.
    """
    mean, var = _statistics(x)
    return _normalize(x, scale, bias, mean, var, is_active, epsilon), mean, var


def _forward(x, scale, bias, is_active: bool, epsilon: float):
    mean, var = _statistics(x)
    return (_normalize(x, scale, bias, mean, var, is_active, epsilon), mean, var), (x, scale, bias, mean, var)


def _backward(is_active: bool, epsilon: float, residuals, cotangents):
    """Return the gradients of x, scale and bias.

    With x̂ = (x - mean) / σ and sums over the n positions of a channel, they are

      bias:  Σ dy
      scale: Σ dy x̂
      x:     scale / σ · (dy - Σ dy / n - x̂ · Σ dy x̂ / n).

    This needs two reductions over the batch, of one pass over the map. Automatic differentiation through mean and mean square needs
    five.
    """
    x, scale, bias, mean, var = residuals
    dy = cotangents[0]
    if is_active:
        dy = jnp.where(
            _normalize(x, scale, bias, mean, var, True, epsilon) > 0, dy, 0
        )  # the gradient of a ReLU is 0 at 0
    inverse = jax.lax.rsqrt(var + epsilon)
    centered = x - mean
    bias_gradient, along_x = channel_sums(_widen(dy), dy * centered)
    scale_gradient = along_x * inverse
    n = x.size // x.shape[-1]
    slope = scale_gradient * inverse / n
    dx = scale * inverse * (dy - bias_gradient / n - centered * slope)
    return dx.astype(x.dtype), scale_gradient, bias_gradient


normalize_by_batch.defvjp(_forward, _backward)


def _normalize_masked(x, scale, bias, is_active: bool, mask: Bool[Array, "n h w"], epsilon: float):
    """Normalize by the statistics of the positions in a mask. Written plainly: only networks that leave positions out come here."""
    wide, weights = _widen(x), _widen(mask[..., None])
    count = jnp.maximum(weights.sum(), 1)
    mean = (weights * wide).sum((0, 1, 2)) / count
    var = (weights * jnp.square(wide - mean)).sum((0, 1, 2)) / count
    y = jnp.where(mask[..., None], _normalize(x, scale, bias, mean, var, is_active, epsilon), 0)
    return y, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)


def _statistics(x: Float[Array, "n h w c"]) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
    """Return mean and variance of each channel, both from one pass over the map."""
    x = _widen(x)
    total, total_of_squares = channel_sums(x, jnp.square(x))
    n = x.size // x.shape[-1]
    mean = total / n
    # Rounding can make the mean of the squares smaller than the square of the mean.
    return mean, jnp.maximum(0.0, total_of_squares / n - jnp.square(mean))


def _widen(x: Shaped[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Convert half precision to float32, so that sums keep their digits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _normalize(x, scale, bias, mean, var, is_active: bool, epsilon: float):
    y = ((x - mean) * (jax.lax.rsqrt(var + epsilon) * scale) + bias).astype(x.dtype)
    return nn.relu(y) if is_active else y
