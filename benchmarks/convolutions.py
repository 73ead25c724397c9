"""Time the convolutions that we compute in a way of our own on CPU, and the same as XLA compiles them.

    python benchmarks/convolutions.py [--rounds=5] [--only=depthwise,wide]

For each layer it prints the median time of the result and of both gradients together, in milliseconds, of ours and of the plain
convolution, and how many times faster ours is. The two take turns. For wide layers, the result is the same program.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from timing import describe_machine, in_turn, print_table, ready

from pyrseg_jax.distributed import host_memory
from pyrseg_jax.models.xla_cpu_convolution import convolve
from pyrseg_jax.models.xla_cpu_depthwise import convolve_depthwise

# The network that has such a layer, (N, H, W, C), output channels, side of the kernel, stride, dilation.
DEPTHWISE = (
    ("ConvNeXt-T, stage 1, 224 px", (4, 56, 56, 96), 96, 7, 1, 1),
    ("ConvNeXt-T, stage 2", (4, 28, 28, 192), 192, 7, 1, 1),
    ("ConvNeXt-T, stage 3", (4, 14, 14, 384), 384, 7, 1, 1),
    ("ConvNeXt-T, stage 4", (4, 7, 7, 768), 768, 7, 1, 1),
    ("MiT-B2, stage 1, 256 px", (4, 64, 64, 256), 256, 3, 1, 1),
    ("MobileNetV3, stride 2", (4, 56, 56, 72), 72, 5, 2, 1),
    ("DeepLabV3+, dilation 12", (4, 48, 48, 144), 144, 3, 1, 12),
)
WIDE = (
    ("F_agg, level 3, 256 px", (4, 32, 32, 512), 512, 3, 1, 1),
    ("F_agg, level 1", (4, 8, 8, 512), 512, 3, 1, 1),
    ("HRNet, stage 1", (4, 64, 64, 64), 64, 3, 1, 1),
    ("HRNet, second layer of the stem", (4, 128, 128, 64), 64, 3, 2, 1),
    ("HRNet-W48, stride 4", (4, 64, 64, 48), 48, 3, 1, 1),
    ("HRNet-W48, stride 16", (4, 16, 16, 192), 192, 3, 1, 1),
    ("ResNet, stage 5, dilated", (4, 32, 32, 512), 512, 3, 1, 4),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="depthwise,wide", help="depthwise, wide, or both separated by a comma")
    options = parser.parse_args()
    host_memory.keep_memory_between_steps()  # as in a real run
    print(describe_machine())
    rows = []
    for kind in options.only.split(","):
        for layer in {"depthwise": DEPTHWISE, "wide": WIDE}[kind]:
            rows.append(measure(kind == "depthwise", options.rounds, *layer))
    print_table(("layer", "result", "plain", "times", "gradients", "plain", "times"), rows)


def measure(is_depthwise, rounds, name, shape, features, side, stride, dilation):
    """Return a row of the table."""
    rng, pad = np.random.default_rng(0), dilation * (side // 2)
    inputs = 1 if is_depthwise else shape[-1]
    x, kernel = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in (shape, (side, side, inputs, features)))
    strides, padding = (stride, stride), ((pad, pad), (pad, pad))
    plain = functools.partial(
        jax.lax.conv_general_dilated,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=shape[-1] // inputs,
    )
    ways = {"ours": convolve_depthwise if is_depthwise else convolve, "plain": plain}
    cells = []
    for program in (make_result, make_gradients):
        runs = {}
        for way, function in ways.items():
            compiled = program(
                lambda x, kernel, f=function: f(x, kernel, strides, padding, rhs_dilation=(dilation,) * 2)
            )
            runs[way] = ready(compiled, x, kernel)
        seconds = in_turn(runs, rounds)
        cells += [f"{1000 * seconds['ours']:.1f}", f"{1000 * seconds['plain']:.1f}"]
        cells.append(f"{seconds['plain'] / seconds['ours']:.1f}")
    return name, *cells


def make_result(convolve):
    """Compile the convolution."""
    return jax.jit(convolve)


def make_gradients(convolve):
    """Compile the gradients of a sum of the result's squares."""
    return jax.jit(jax.grad(lambda x, kernel: jnp.square(convolve(x, kernel)).sum(), (0, 1)))


if __name__ == "__main__":
    main()
