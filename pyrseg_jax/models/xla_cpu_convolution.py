"""Convolutions whose kernel's gradient XLA's CPU compiler computes slowly; see also `xla_cpu.py`."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pair = tuple[int, int]


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k l c d"],
    strides: Sequence[int],
    padding: Sequence[Pair],
    *,
    rhs_dilation: Sequence[int] | None = None,
    **_: object,
) -> Float[Array, "n _ _ d"]:
    """Convolve, with a gradient of the kernel that is made of matrix products.

    The gradient of a kernel is a convolution with a kernel as large as the map. XLA:CPU takes up to five times as long for it as
    for the matrix products that it consists of, one per row of the kernel: the cotangent's vectors with those of the map, shifted
    by that row, with all shifts along the columns side by side. Where a kernel is narrow, copying them would take longer than
    what is won. `nn.Conv` calls this instead of `jax.lax.conv_general_dilated`.

    Args:
      x: (N, H, W, C).
      kernel: (rows, columns, C, D).
      strides: positions from one output to the next, of both axes.
      padding: zeros before and after the map, of both axes.
      rhs_dilation: positions from one tap of the kernel to the next, of both axes; None: 1.

    Plain twin: `jax.lax.conv_general_dilated(x, kernel, strides, padding, rhs_dilation=rhs_dilation,
    dimension_numbers=("NHWC", "HWIO", "NHWC"))`, which is also what every other platform runs, with its gradients.
    """
    (along_rows, along_columns), (rows, columns) = strides, padding
    down, right = rhs_dilation or (1, 1)
    shape = (along_rows, along_columns), ((rows[0], rows[1]), (columns[0], columns[1])), (down, right)
    if x.dtype == jnp.float32 and _is_wide(x, kernel):
        return _convolve(shape, x, kernel)
    return _convolve_plainly(shape, x, kernel)


def _is_wide(x: Array, kernel: Array) -> bool:
    """Return whether matrix products are faster. A program that is exported for sides of any size has no gradient."""
    narrow, known = min(kernel.shape[2:]), [side for side in x.shape[1:3] if isinstance(side, int)]
    return narrow >= 96 or narrow >= 32 and math.prod(known) >= 64 * 64


_Shape = tuple[Pair, tuple[Pair, Pair], Pair]  # strides, padding and dilation


def _convolve_plainly(shape: _Shape, x: Array, kernel: Array) -> Array:
    strides, padding, dilation = shape
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(shape: _Shape, x: Array, kernel: Array) -> Array:
    return _convolve_plainly(shape, x, kernel)


def _forward(shape: _Shape, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve_plainly(shape, x, kernel), (x, kernel)


def _backward(shape: _Shape, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (of_map,) = jax.vjp(lambda x: _convolve_plainly(shape, x, kernel), x)[1](cotangent)

    def by_convolution(x: Array, cotangent: Array) -> Array:
        return jax.vjp(lambda kernel: _convolve_plainly(shape, x, kernel), kernel)[1](cotangent)[0]

    def by_products(x: Array, cotangent: Array) -> Array:
        return _multiply_shifted(shape, x, cotangent, (kernel.shape[0], kernel.shape[1]))

    return of_map, jax.lax.platform_dependent(x, cotangent, cpu=by_products, default=by_convolution)


_convolve.defvjp(_forward, _backward)


def _multiply_shifted(
    shape: _Shape, x: Float[Array, "n h w c"], cotangent: Float[Array, "n i j d"], sides: Pair
) -> Float[Array, "k l c d"]:
    """Return the gradient of a kernel (k, l, C, D), as one matrix product per row of it."""
    strides, padding, dilation = shape
    rows, columns, d = cotangent.shape[1:]
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))

    def shifted(padded: Array, tap: int, axis: int, count: int) -> Array:
        first, stride = tap * dilation[axis - 1], strides[axis - 1]
        return jax.lax.slice_in_dim(padded, first, first + (count - 1) * stride + 1, stride, axis)

    strips = jnp.concatenate([shifted(padded, tap, 2, columns) for tap in range(sides[1])], axis=3)
    vectors = cotangent.reshape(-1, d)
    products = [
        jnp.einsum("pd,pv->dv", vectors, shifted(strips, tap, 1, rows).reshape(-1, strips.shape[3]))
        for tap in range(sides[0])
    ]
    return jnp.stack(products).reshape(sides[0], d, sides[1], -1).transpose(0, 2, 3, 1)
