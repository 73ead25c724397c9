"""Time layers that are written in an unusual way for speed, against the plain way to write them.

    python benchmarks/layers.py

Prints the milliseconds of both ways and their ratio, for the forward and the backward pass together, measured in turn in one run.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from timing import in_turn, ready

from pyrseg_jax.models import layers, xla_cpu

ROUNDS = 15


def plain_1x1(x, kernel):
    """Convolve with a 1×1 kernel."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def plain_patches(x, kernel):
    """Convolve with a stride equal to the kernel size."""
    return jax.lax.conv_general_dilated(
        x, kernel, kernel.shape[:2], "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def product(x, kernel):
    """Convolve patches that do not overlap, as a matrix product."""
    return xla_cpu.convolve_as_matrix_product(x, kernel)


def plain_sampling(x, _):
    """Average each bin over rows and columns at once."""
    parts = []
    for size in layers.PYRAMID_SAMPLING_SIZES:
        rows, columns = (jnp.asarray(layers.bin_weights(side, size)) for side in x.shape[1:3])
        parts.append(jnp.einsum("nhwc,ih,jw->nijc", x, rows, columns).reshape(len(x), size * size, -1))
    return jnp.concatenate(parts, axis=1)


def cases(rng):
    """Yield name, our way, the plain way, and the arguments of both."""

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    x = normal(8, 56, 56, 240)
    yield "1×1, 240 → 64, as a matrix product", product, plain_1x1, x, normal(1, 1, 240, 64)
    yield "8×8 patches, 32 → 1, as a matrix product", product, plain_patches, normal(8, 56, 56, 32), normal(8, 8, 32, 1)
    y = normal(8, 56, 56, 64)
    yield (
        "averages of 2×2, 4×4, and 8×8, each from the one before",
        lambda x, _: layers.average_levels(x, 4)[:-1],
        lambda x, _: tuple(nn.avg_pool(x, (side, side), (side, side)) for side in (8, 4, 2)),
        y,
        y,
    )
    yield "pyramid sampling, rows first", lambda x, _: layers.pyramid_sampling(x), plain_sampling, y, y


def median_ms(functions, arguments):
    """Return the milliseconds of the forward and backward pass of each function."""
    gradients = [jax.jit(jax.grad(lambda x, k, f=f: (f(x, k) ** 2).sum(), argnums=(0, 1))) for f in functions]
    seconds = in_turn({str(i): ready(run, *arguments) for i, run in enumerate(gradients)}, ROUNDS)
    return [1000 * value for value in seconds.values()]


def main():
    """Check that both ways agree, and print their times."""
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
    print(f"{'':<44}{'ours ms':>9}{'plain ms':>10}{'ratio':>8}")
    for name, ours, plain, *arguments in cases(np.random.default_rng(0)):
        difference = jnp.abs(ours(*arguments) - plain(*arguments)).max()
        assert difference < 1e-2, f"{name}: the two ways differ by {difference}"
        a, b = median_ms((ours, plain), arguments)
        print(f"{name:<44}{a:>9.1f}{b:>10.1f}{b / a:>8.2f}")


if __name__ == "__main__":
    main()
