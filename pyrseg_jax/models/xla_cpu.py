"""Every work-around for XLA's CPU compiler, in one place.

The rest of `models` reads like the papers. Where the obvious way to write an operation is slow on CPU, it calls a function of this
file. Each function says what XLA:CPU does with the obvious code, and names that code as its plain twin: the two return the same
numbers, but for the rounding of sums in another order. The measurements are in the performance notes of the documentation.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

# Elements of a map up to which `channel_sums` adds both of its sums in one loop.
SMALL_MAP = 1 << 19


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
    return multiply_rows(x, kernel.reshape(size * size * c, -1))


def multiply_rows(
    x: Float[Array, "*dims c"], kernel: Float[Array, "c d"], *_: object, **__: object
) -> Float[Array, "*dims d"]:
    """Multiply the vector of each position by a matrix.

    The gradient of the matrix is a sum over all positions. If they lie along several axes, XLA:CPU first stores the transposed
    gradient of the result, and computes it once more for that copy. The sum over a single axis is one matrix product, which takes
    a quarter to a half of the time. `nn.Dense` calls this instead of `jax.lax.dot_general`, with further options that are fixed
    here.

    Plain twin: `x @ kernel`, with the same gradients on every other platform.
    """
    return _multiply_rows(x, kernel)


@jax.custom_vjp
def _multiply_rows(x: Array, kernel: Array) -> Array:
    return x @ kernel


def _multiply_rows_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _multiply_rows_backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = saved

    def along_all_axes(x: Array, cotangent: Array) -> Array:
        return jax.vjp(lambda matrix: x @ matrix, kernel)[1](cotangent)[0]

    def along_one_axis(x: Array, cotangent: Array) -> Array:
        return along_all_axes(x.reshape(-1, x.shape[-1]), cotangent.reshape(-1, cotangent.shape[-1]))

    (of_x,) = jax.vjp(lambda rows: rows @ kernel, x)[1](cotangent)
    of_kernel = jax.lax.platform_dependent(x, cotangent, cpu=along_one_axis, default=along_all_axes)
    return of_x, of_kernel


_multiply_rows.defvjp(_multiply_rows_forward, _multiply_rows_backward)


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


@jax.custom_vjp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the Gaussian error linear unit, exact: x · (1 + erf(x / √2)) / 2.

    JAX computes it with the complementary error function, which has more digits where the result is nearly 0. XLA:CPU needs three
    times as long for that. PyTorch uses erf as well. Half-precision numbers are computed in float32.

    Plain twin: `jax.nn.gelu(x, approximate=False)`, which is also what every other platform runs.
    """
    return jax.lax.platform_dependent(x, cpu=_gelu_by_erf, default=_plain_gelu)


def _plain_gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def _share_below(x: Array) -> tuple[Array, Array]:
    """Return x in float32 at least, and the share of a normal distribution that is below it."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return wide, 0.5 + 0.5 * jax.lax.erf(wide * math.sqrt(0.5))


def _gelu_by_erf(x: Array) -> Array:
    wide, share = _share_below(x)
    return (wide * share).astype(x.dtype)


def _gelu_gradient_by_erf(x: Array, cotangent: Array) -> Array:
    wide, share = _share_below(x)
    density = jnp.exp(-0.5 * jnp.square(wide)) / math.sqrt(2 * math.pi)
    return (cotangent.astype(wide.dtype) * (share + wide * density)).astype(x.dtype)


def _plain_gelu_gradient(x: Array, cotangent: Array) -> Array:
    return jax.vjp(_plain_gelu, x)[1](cotangent)[0]


def _gelu_backward(x: Array, cotangent: Array) -> tuple[Array]:
    return (jax.lax.platform_dependent(x, cotangent, cpu=_gelu_gradient_by_erf, default=_plain_gelu_gradient),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


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
