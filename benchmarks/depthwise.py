"""Time depthwise convolutions on CPU: ours, and as XLA compiles them.

    python benchmarks/depthwise.py [--repeats=5]

For each layer it prints the lowest time of the result and of both gradients together, in milliseconds, of ours and of the plain
convolution, and how many times faster ours is. The two take turns.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from pyrseg_jax.models.xla_cpu_depthwise import convolve_depthwise

# The network that has such a layer, (N, H, W, C), side of the kernel, stride, dilation.
LAYERS = (
    ("ConvNeXt-T, stage 1, 224 px", (4, 56, 56, 96), 7, 1, 1),
    ("ConvNeXt-T, stage 2", (4, 28, 28, 192), 7, 1, 1),
    ("ConvNeXt-T, stage 3", (4, 14, 14, 384), 7, 1, 1),
    ("ConvNeXt-T, stage 4", (4, 7, 7, 768), 7, 1, 1),
    ("MiT-B2, stage 1, 256 px", (4, 64, 64, 256), 3, 1, 1),
    ("MobileNetV3, stride 2", (4, 56, 56, 72), 5, 2, 1),
    ("DeepLabV3+, dilation 12", (4, 48, 48, 144), 3, 1, 12),
)


def plain(x, kernel, strides, padding, rhs_dilation):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=rhs_dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rng = np.random.default_rng(0)
    print(f"jax {jax.__version__}, {jax.devices()[0].platform}")
    print("| layer | result | plain | times | gradients | plain | times |\n|---|---|---|---|---|---|---|")
    for name, shape, side, stride, dilation in LAYERS:
        pad = dilation * (side // 2)
        options = (stride, stride), ((pad, pad), (pad, pad))
        x, kernel = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in (shape, (side, side, 1, shape[-1])))
        cells = []
        for is_gradient in (False, True):
            programs = [
                make_program(f, options, (dilation, dilation), is_gradient) for f in (convolve_depthwise, plain)
            ]
            ours, theirs = lowest(programs, (x, kernel), repeats)
            cells += [f"{1000 * ours:.1f}", f"{1000 * theirs:.1f}", f"{theirs / ours:.1f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def make_program(function, options, dilation, is_gradient):
    """Compile the convolution or the gradients of a sum of its squares."""

    def convolve(x, kernel):
        return function(x, kernel, *options, rhs_dilation=dilation)

    return jax.jit(jax.grad(lambda *args: jnp.square(convolve(*args)).sum(), (0, 1)) if is_gradient else convolve)


def lowest(programs, arguments, repeats):
    """Return the lowest time of each program in seconds; they take turns, after one call each that compiles."""
    times = [[] for _ in programs]
    for turn in range(repeats + 1):
        for program, taken in zip(programs, times):
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            if turn:
                taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


if __name__ == "__main__":
    main()
