"""Depthwise convolutions for XLA's CPU compiler, which runs them channel by channel; see also `xla_cpu.py`."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Elements of a map up to which `convolve_depthwise` is not worth the time that its program takes to compile.
TINY_MAP = 1 << 14

Pair = tuple[int, int]


def convolve_depthwise(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k l 1 c"],
    strides: Sequence[int],
    padding: Sequence[Pair],
    *,
    rhs_dilation: Sequence[int] | None = None,
    bias: Float[Array, "c"] | None = None,
    **_: object,
) -> Float[Array, "n _ _ c"]:
    """Convolve each channel with a kernel of its own, and add a bias, if there is one.

    XLA:CPU runs such a convolution 12 to 36 times slower than it multiplies and adds shifted maps, and its gradients 4 to 29 times
    (`benchmarks/convolutions.py`). `nn.Conv` calls this instead of `jax.lax.conv_general_dilated`. Results and gradients have the
    input's number format and are summed in at least float32.

    Args:
      x: (N, H, W, C).
      kernel: (rows, columns, 1, C).
      strides: positions from one output to the next, of both axes.
      padding: zeros before and after the map, of both axes.
      rhs_dilation: positions from one tap of the kernel to the next, of both axes; None: 1.
      bias: (C,), in the input's number format.

    Plain twin: `jax.lax.conv_general_dilated(x, kernel, strides, padding, rhs_dilation=rhs_dilation,
    dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=C) + bias`, which is also what every other platform runs, and
    the CPU for maps up to `TINY_MAP`.
    """
    (along_rows, along_columns), (rows, columns) = strides, padding
    down, right = rhs_dilation or (1, 1)
    shape = _Shape((along_rows, along_columns), ((rows[0], rows[1]), (columns[0], columns[1])), (down, right))
    return shape.convolve_plainly(x, kernel, bias) if _is_plain(x, kernel) else _convolve(shape, x, kernel, bias)


def _is_plain(x: Array, kernel: Array) -> bool:
    """Return whether the plain convolution is as good: on tiny maps, of groups of several channels, or of an unknown size.

    An exported program may be for any number of images. Then, one image decides.
    """
    known = [side for side in x.shape if isinstance(side, int)]
    return len(known) < 3 or math.prod(known) <= TINY_MAP or kernel.shape[2] > 1


class _Shape(tuple):
    """Strides, padding and dilation of a convolution; hashable, as a static argument must be."""

    def __new__(cls, strides: Pair, padding: tuple[Pair, Pair], dilation: Pair):
        return super().__new__(cls, (strides, padding, dilation))

    def convolve_plainly(self, x: Array, kernel: Array, bias: Array | None) -> Array:
        strides, padding, dilation = self
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1] // kernel.shape[2],
        )
        return y if bias is None else y + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(shape: _Shape, x: Array, kernel: Array, bias: Array | None) -> Array:
    by_shifts = functools.partial(_convolve_by_shifts, shape)
    return jax.lax.platform_dependent(x, kernel, bias, cpu=by_shifts, default=shape.convolve_plainly)


def _forward(shape: _Shape, x: Array, kernel: Array, bias: Array | None) -> tuple[Array, tuple]:
    return _convolve(shape, x, kernel, bias), (x, kernel, bias)


def _backward(
    shape: _Shape, saved: tuple[Array, Array, Array | None], cotangent: Array
) -> tuple[Array, Array, Array | None]:
    x, kernel, bias = saved

    def plainly(x: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        return jax.vjp(lambda x, kernel: shape.convolve_plainly(x, kernel, None), x, kernel)[1](cotangent)

    def by_shifts(x: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        return _gradient_of_map(shape, x, kernel, cotangent), _gradient_of_kernel(shape, x, kernel, cotangent)

    of_map, of_kernel = jax.lax.platform_dependent(x, kernel, cotangent, cpu=by_shifts, default=plainly)
    return of_map, of_kernel, None if bias is None else cotangent.sum((0, 1, 2))


_convolve.defvjp(_forward, _backward)


def _gradient_of_map(shape: _Shape, x: Array, kernel: Array, cotangent: Array) -> Array:
    """Return the gradient of the map: the cotangent, spread by the strides, convolved with the turned kernel."""
    strides, padding, dilation = shape
    spread = [(0, 0, 0)]
    for size, side, stride, (before, _), step, count in zip(
        x.shape[1:3], kernel.shape[:2], strides, padding, dilation, cotangent.shape[1:3], strict=True
    ):
        reach = (side - 1) * step
        low = reach - before
        # As many positions as give an output of the map's size.
        spread.append((low, size + reach - low - ((count - 1) * stride + 1), stride - 1))
    wide = jax.lax.pad(cotangent, jnp.zeros((), cotangent.dtype), [*spread, (0, 0, 0)])
    return _convolve_by_shifts(_Shape((1, 1), ((0, 0), (0, 0)), dilation), wide, kernel[::-1, ::-1])


def _convolve_by_shifts(shape: _Shape, x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Add the shifted maps, each multiplied by its tap of the kernel, in one loop.

    The rows are computed in reversed order and turned around near the end. XLA:CPU would otherwise hand all the products to its
    YNNPACK library, one after another, when a large sum such as that of a layer normalization follows. The very last operation is
    a sum of two maps. XLA:CPU would repeat anything else, such as the sum of a map and a bias, and all that leads to it, in each
    loop that reads the result; a layer normalization and its gradient have seven.
    """
    strides, padding, dilation = shape
    kind = jnp.promote_types(x.dtype, jnp.float32)
    padded = jnp.pad(x.astype(kind), ((0, 0), *padding, (0, 0)))
    sides = padded.shape[1:3]
    rows, columns = (
        (size - (side - 1) * step - 1) // stride + 1
        for size, side, stride, step in zip(sides, kernel.shape[:2], strides, dilation, strict=True)
    )
    padded = jax.lax.optimization_barrier(padded[:, ::-1])
    bottom, taps = sides[0] - 1 - (rows - 1) * strides[0], kernel[:, :, 0].astype(kind)

    def shifted(i: int, j: int) -> Array:
        top, left = bottom - i * dilation[0], j * dilation[1]
        return padded[
            :,
            top : top + (rows - 1) * strides[0] + 1 : strides[0],
            left : left + (columns - 1) * strides[1] + 1 : strides[1],
        ]

    products = [shifted(i, j) * taps[i, j] for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
    last = products.pop()[:, ::-1]
    if bias is not None:
        last += bias.astype(kind)
    total = jnp.asarray(sum(products[1:], products[0]))[:, ::-1] + last if products else last
    return total.astype(x.dtype)


def _gradient_of_kernel(shape: _Shape, x: Array, kernel: Array, cotangent: Array) -> Array:
    strides, _, dilation = shape
    if min(kernel.shape[:2]) > 1 and strides == dilation == (1, 1):
        return _correlate_tiles(shape, x, cotangent, kernel)
    return jax.vjp(lambda taps: _convolve_by_shifts(shape, x, taps), kernel)[1](cotangent)[0]


def _correlate_tiles(shape: _Shape, x: Array, cotangent: Array, kernel: Array) -> Array:
    """Return the gradient of a kernel, at stride 1 and without dilation.

    The map is cut into tiles. In one loop over the taps and the tiles, each tap adds up the products at the positions of a tile;
    the tiles are added at the end. Between the two, the rows of the kernel are reversed and then turned around again: without
    that, XLA:CPU would hand all the products to its YNNPACK library, as in `_convolve_by_shifts`.
    """
    _, ((top, bottom), (left, right)), _ = shape
    n, h, w, c = cotangent.shape
    kind = jnp.promote_types(x.dtype, jnp.float32)
    rows, columns = _side_of_tiles(h), _side_of_tiles(w)
    below, beside = -h % rows, -w % columns
    padded = jnp.pad(x.astype(kind), ((0, 0), (top, bottom + below), (left, right + beside), (0, 0)))
    cells = jnp.pad(cotangent.astype(kind), ((0, 0), (0, below), (0, beside), (0, 0)))
    cells = cells.reshape(n, (h + below) // rows, rows, (w + beside) // columns, columns, c)
    cut = _cut(_cut(padded, 1, rows, kernel.shape[0] - 1), 3, columns, kernel.shape[1] - 1)
    tiles = jax.lax.optimization_barrier(cut)
    total = sum(
        tiles[:, :, i : i + kernel.shape[0], :, j : j + kernel.shape[1]] * cells[:, :, i : i + 1, :, j : j + 1]
        for i in range(rows)
        for j in range(columns)
    )
    turned = jnp.asarray(total)[:, :, ::-1].sum((0, 1, 3))
    return turned[::-1, :, None].astype(kernel.dtype)


def _side_of_tiles(side: int) -> int:
    """Return the side of tiles, 8 positions at most, that leaves the least of the last tile empty."""
    return side if side <= 8 else min((8, 7, 6, 5), key=lambda tile: -side % tile)


def _cut(x: Array, axis: int, side: int, overlap: int) -> Array:
    """Cut an axis into tiles (number, side + overlap) that overlap."""
    starts = range(0, x.shape[axis] - overlap, side)
    return jnp.stack([jax.lax.slice_in_dim(x, i, i + side + overlap, axis=axis) for i in starts], axis)
