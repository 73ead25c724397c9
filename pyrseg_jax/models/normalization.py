"""Batch normalisation, with the ReLU that may follow it, and its gradient in closed form."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

MOMENTUM = 0.9  # Flax's sense: the share of the old value that is kept; PyTorch calls this 0.1
EPSILON = 1e-5
SMALL = 1 << 19  # elements of a map whose two sums are computed in one loop, on CPU


class BatchNorm(nn.Module):
    """Normalise each channel over (N, H, W), scale and shift it, and take the ReLU of it if `is_active`.

    In training by mean and variance of the batch, which also move the running ones; else by the running ones. Statistics are
    computed in float32 at least, and kept so. Under `jit` with a sharded batch they are those of the global batch.

    Differs: the running variance is the biased one (divided by n); PyTorch keeps the unbiased.
    """

    is_active: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w c"]:
        channels = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        x = x.astype(self.dtype)
        if not train:
            return _normalize(x, scale, bias, running_mean.value, running_var.value, self.is_active)
        y, mean, var = normalize_by_batch(x, scale, bias, self.is_active)
        if not self.is_initializing():
            running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
            running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * var
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize_by_batch(
    x: Float[Array, "n h w c"], scale: Float[Array, "c"], bias: Float[Array, "c"], is_active: bool
) -> tuple[Float[Array, "n h w c"], Float[Array, "c"], Float[Array, "c"]]:
    """Normalise by the batch's own statistics; return the result, the mean and the (biased) variance of each channel.

    The gradient is that of the result alone; nothing is differentiated through the two statistics returned.
    """
    mean, var = _statistics(x)
    return _normalize(x, scale, bias, mean, var, is_active), mean, var


def _forward(x, scale, bias, is_active):
    mean, var = _statistics(x)
    return (_normalize(x, scale, bias, mean, var, is_active), mean, var), (x, scale, bias, mean, var)


def _backward(is_active, residuals, cotangents):
    """Return the gradients, with x̂ = (x - mean) / σ and sums over the n positions of a channel.

    bias: Σ dy;  scale: Σ dy x̂;  x: scale / σ · (dy - Σ dy / n - x̂ · Σ dy x̂ / n).

    Two sums over the batch, one after the other map: what is derived step by step, through mean and mean square, takes five.
    """
    x, scale, bias, mean, var = residuals
    dy = cotangents[0]
    if is_active:
        dy = jnp.where(_normalize(x, scale, bias, mean, var, True) > 0, dy, 0)  # as ReLU has it: none at 0
    inverse = jax.lax.rsqrt(var + EPSILON)
    centred = x - mean
    bias_gradient, along_x = _sums(_widened(dy), dy * centred)
    scale_gradient = along_x * inverse
    n = x.size // x.shape[-1]
    slope = scale_gradient * inverse / n
    dx = scale * inverse * (dy - bias_gradient / n - centred * slope)
    return dx.astype(x.dtype), scale_gradient, bias_gradient


normalize_by_batch.defvjp(_forward, _backward)


def _statistics(x: Float[Array, "n h w c"]) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
    """Return mean and variance of each channel, both from one pass over the map."""
    x = _widened(x)
    total, total_of_squares = _sums(x, jnp.square(x))
    n = x.size // x.shape[-1]
    mean = total / n
    return mean, jnp.maximum(0.0, total_of_squares / n - jnp.square(mean))


def _widened(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _sums(x: Float[Array, "n h w c"], y: Float[Array, "n h w c"]) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
    """Return the sums of two maps over the positions of each channel."""

    def together(x, y):
        def add(axes, x, y):
            zeros = (jnp.zeros((), x.dtype),) * 2
            return jax.lax.reduce((x, y), zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), axes)

        # One axis after another: sums of many numbers one by one lose digits.
        return tuple(add((0,), *add((1,), *add((2,), x, y))))

    def apart(x, y):
        return x.sum((0, 1, 2)), y.sum((0, 1, 2))

    # XLA on CPU leaves a plain sum to YNNPACK, for which it stores what is summed, and each of whose operations it later looks for
    # in the whole program when it reads that from the cache. Of large maps those sums are many times faster; of small ones not.
    if x.size > SMALL:
        return apart(x, y)
    return jax.lax.platform_dependent(x, y, cpu=together, default=apart)


def _normalize(x, scale, bias, mean, var, is_active: bool):
    y = ((x - mean) * (jax.lax.rsqrt(var + EPSILON) * scale) + bias).astype(x.dtype)
    return nn.relu(y) if is_active else y
