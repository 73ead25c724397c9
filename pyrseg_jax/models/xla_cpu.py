"""Every work-around for XLA's CPU compiler, in one place.

The rest of `models` reads like the papers. Where the obvious way to write an operation is slow on CPU, it calls a function of this
file. Each function says what XLA:CPU does with the obvious code, and names that code as its plain twin: the two return the same
numbers, but for the rounding of sums in another order. The measurements are in the performance notes of the documentation.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

# Elements of a map up to which `channel_sums` adds both of its sums in one loop.
SMALL_MAP = 1 << 19
# Elements of a map up to which `convolve_depthwise` is not worth the time that its program takes to compile.
TINY_MAP = 1 << 14


def convolve_as_matrix_product(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k c d"], *_: object, **__: object
) -> Float[Array, "n _ _ d"]:
    """Convolve without overlap or padding (stride = kernel size), as one matrix product.

    XLA:CPU runs the gradient of a 1×1 convolution many times slower than the same matrix product. So the pixels of each k × k cell
    become one long vector, which is multiplied by the kernel. `nn.Conv` calls this instead of `jax.lax.conv_general_dilated`,
    with strides, padding and further options that are fixed here.

    Plain twin: `jax.lax.conv_general_dilated(x, kernel, (k, k), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))`.
    """
    size = kernel.shape[0]
    n, h, w, c = x.shape
    if h % size or w % size:
        x = x[:, : h - h % size, : w - w % size]
    if size > 1:
        x = x.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, h // size, w // size, size * size * c)
    return x @ kernel.reshape(size * size * c, -1)


def convolve_channels(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k k 1 c"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *_: object,
    **__: object,
) -> Float[Array, "n _ _ c"]:
    """Convolve each channel by itself (a depthwise convolution).

    XLA:CPU runs a convolution of as many groups as channels tens of times slower than one product of the map for each tap of the
    kernel, and their sum. `nn.Conv` calls this instead of `jax.lax.conv_general_dilated`. Dilated kernels are not supported.

    Args:
      x: (N, H, W, C).
      kernel: (rows, columns, 1, C).
      strides: positions from one output to the next, of both axes.
      padding: zeros before and after the map, of both axes.

    Plain twin: `jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=C)`, which is also what every other platform runs.
    """

    def elsewhere(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )

    return jax.lax.platform_dependent(
        x, kernel, cpu=lambda x, kernel: _sum_of_taps(x, kernel, strides, padding), default=elsewhere
    )


def _sum_of_taps(x: Array, kernel: Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]) -> Array:
    wide = jnp.promote_types(x.dtype, jnp.float32)  # a sum of half precision would lose digits
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = kernel.shape[:2]
    last = [size - side for size, side in zip(padded.shape[1:3], (rows, columns), strict=True)]
    total = None
    for i in range(rows):
        for j in range(columns):
            shifted = padded[:, i : i + last[0] + 1 : strides[0], j : j + last[1] + 1 : strides[1]]
            product = shifted.astype(wide) * kernel[i, j, 0].astype(wide)
            total = product if total is None else total + product
    assert total is not None, kernel.shape
    return total.astype(x.dtype)


@jax.custom_jvp
def add_relu(x: Float[Array, "*shape"], y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the ReLU of x + y, for finite numbers.

    XLA:CPU treats `max(x, constant)` as cheap and recomputes it in every fusion that reads it, back through all residual blocks
    before it. A sum of two maps is not treated so; therefore the sum comes last: x + max(y, -x).

    Plain twin: `nn.relu(x + y)`. The gradient is that of the twin, 0 where the sum is 0.
    """
    return x + jnp.maximum(y, -x)


@add_relu.defjvp
def _add_relu_jvp(primals, tangents):
    out = add_relu(*primals)
    return out, jnp.where(out > 0, sum(tangents), 0)


def average_cells(x: Float[Array, "n h w c"], side: int) -> Float[Array, "n _ _ c"]:
    """Average over cells of side × side positions.

    XLA:CPU takes six times longer for the gradient of a pooling window than for that of a reshape and a mean.

    Plain twin: `nn.avg_pool(x, (side, side), (side, side))`.
    """
    n, h, w, c = x.shape
    return x.reshape(n, h // side, side, w // side, side, c).mean((2, 4))


def resample_separably(
    x: Float[Array, "n h w c"], rows: Float[Array, "i h"], columns: Float[Array, "j w"]
) -> Float[Array, "n i j c"]:
    """Resample with one weight matrix per axis, keeping the channels last in between.

    The matrix products of `jax.image.resize` leave the map transposed, and XLA:CPU transposes it back for every use of the result.
    One product per row and per image does not.

    Plain twin: `jnp.einsum("nhwc,ih,jw->nijc", x, rows, columns, precision="highest")`.
    """
    n, h, _, c = x.shape
    (num_rows, _), (num_columns, _) = rows.shape, columns.shape
    wide = jnp.einsum(
        "nhjw,nhwc->nhjc", jnp.broadcast_to(columns, (n, h, *columns.shape)), x, precision="highest"
    ).reshape(n, h, num_columns * c)
    tall = jnp.einsum("nih,nhk->nik", jnp.broadcast_to(rows, (n, *rows.shape)), wide, precision="highest")
    return tall.reshape(n, num_rows, num_columns, c)


def channel_sums(x: Float[Array, "n h w c"], y: Float[Array, "n h w c"]) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
    """Return the sums of two maps over the positions of each channel.

    XLA:CPU hands a plain sum to its YNNPACK library. For that it first stores the map to be summed, and when it reads the program
    from the compilation cache, it searches the whole program for each operation of each such sum. For large maps the library's
    sums are many times faster nevertheless. Small maps, which are most of a network's, are added in one loop for both sums.

    Plain twin: `x.sum((0, 1, 2)), y.sum((0, 1, 2))`, which is also what every other platform runs.
    """
    if x.size > SMALL_MAP:
        return _sum_apart(x, y)
    return jax.lax.platform_dependent(x, y, cpu=_sum_together, default=_sum_apart)


def _sum_apart(x: Array, y: Array) -> tuple[Array, Array]:
    return x.sum((0, 1, 2)), y.sum((0, 1, 2))


def _sum_together(x: Array, y: Array) -> tuple[Array, Array]:
    def add(axes, x, y):
        zeros = (jnp.zeros((), x.dtype),) * 2
        return jax.lax.reduce((x, y), zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), axes)

    # One axis after another: one long sum, number by number, would lose digits.
    x, y = add((0,), *add((1,), *add((2,), x, y)))
    return x, y


def one_image_at_a_time(
    function: Callable[[Shaped[Array, "n ..."]], Shaped[Array, "n ..."]], batch: Shaped[Array, "n ..."]
) -> Shaped[Array, "n ..."]:
    """Apply a function of a batch to its images, one after another.

    What a function reads again and again then stays in a core's cache, which is too small for a whole batch.

    Plain twin: `function(batch)`.
    """
    return jax.lax.map(lambda image: function(image[None])[0], batch)


def convolve_depthwise(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k 1 c"], *_: object, **__: object
) -> Float[Array, "n h w c"]:
    """Convolve each channel with a kernel of its own: stride 1, an odd kernel, and padding that keeps the size.

    XLA:CPU runs such a convolution channel by channel, 20 to 40 times slower than it multiplies and adds shifted maps, and the
    gradient of the kernel is as slow. `nn.Conv` calls this instead of `jax.lax.conv_general_dilated`, with strides, padding and
    further options that are fixed here. Results and gradients have the input's number format and are summed in at least float32.

    Plain twin: `jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=c)`, which is also what every other platform runs, and the CPU for maps up to `TINY_MAP`.
    """
    return _convolve_plainly(x, kernel) if x.size <= TINY_MAP else _convolve_depthwise(x, kernel)


@jax.custom_vjp
def _convolve_depthwise(x: Array, kernel: Array) -> Array:
    return jax.lax.platform_dependent(x, kernel, cpu=_convolve_by_shifts, default=_convolve_plainly)


def _differentiate_plainly(x: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
    return jax.vjp(_convolve_plainly, x, kernel)[1](cotangent)


def _differentiate_by_shifts(x: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
    return _convolve_by_shifts(cotangent, kernel[::-1, ::-1]), _correlate_tiles(x, cotangent, kernel)


_convolve_depthwise.defvjp(
    lambda x, kernel: (_convolve_depthwise(x, kernel), (x, kernel)),
    lambda saved, cotangent: jax.lax.platform_dependent(
        *saved, cotangent, cpu=_differentiate_by_shifts, default=_differentiate_plainly
    ),
)


def _convolve_plainly(x: Array, kernel: Array) -> Array:
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=axes, feature_group_count=x.shape[-1]
    )


def _convolve_by_shifts(x: Array, kernel: Array) -> Array:
    """Add the shifted maps, each multiplied by its tap of the kernel, in one loop.

    The rows are computed in reversed order and turned around at the end. XLA:CPU would otherwise hand all the products to its
    YNNPACK library, one after another, when a large sum such as that of a layer normalization follows.
    """
    size, (_, h, w, _) = kernel.shape[0], x.shape
    kind, pad = jnp.promote_types(x.dtype, jnp.float32), (size // 2, size // 2)
    padded = jax.lax.optimization_barrier(jnp.pad(x[:, ::-1].astype(kind), ((0, 0), pad, pad, (0, 0))))
    taps = kernel[::-1, :, 0].astype(kind)
    total = sum(padded[:, i : i + h, j : j + w] * taps[i, j] for i in range(size) for j in range(size))
    return jnp.asarray(total)[:, ::-1].astype(x.dtype)


def _correlate_tiles(x: Array, cotangent: Array, kernel: Array) -> Array:
    """Return the gradient of a depthwise kernel.

    The map is cut into tiles. In one loop over the taps and the tiles, each tap adds up the products at the positions of a tile;
    the tiles are added at the end. Rows are in reversed order before that, as in `_convolve_by_shifts`.
    """
    size, (n, h, w, c) = kernel.shape[0], x.shape
    kind, pad = jnp.promote_types(x.dtype, jnp.float32), size // 2
    rows, columns = _side_of_tiles(h), _side_of_tiles(w)
    below, right = -h % rows, -w % columns
    padded = jnp.pad(x[:, ::-1].astype(kind), ((0, 0), (pad, pad + below), (pad, pad + right), (0, 0)))
    cells = jnp.pad(cotangent[:, ::-1].astype(kind), ((0, 0), (0, below), (0, right), (0, 0)))
    cells = cells.reshape(n, (h + below) // rows, rows, (w + right) // columns, columns, c)
    tiles = jax.lax.optimization_barrier(_cut(_cut(padded, 1, rows, size - 1), 3, columns, size - 1))
    total = sum(
        tiles[:, :, i : i + size, :, j : j + size] * cells[:, :, i : i + 1, :, j : j + 1]
        for i in range(rows)
        for j in range(columns)
    )
    return jnp.asarray(total)[:, :, ::-1].sum((0, 1, 3))[:, :, None].astype(kernel.dtype)


def _side_of_tiles(side: int) -> int:
    """Return the side of tiles, 8 positions at most, that leaves the least of the last tile empty."""
    return side if side <= 8 else min((8, 7, 6, 5), key=lambda tile: -side % tile)


def _cut(x: Array, axis: int, side: int, overlap: int) -> Array:
    """Cut an axis into tiles (number, side + overlap) that overlap."""
    starts = range(0, x.shape[axis] - overlap, side)
    return jnp.stack([jax.lax.slice_in_dim(x, i, i + side + overlap, axis=axis) for i in starts], axis)
