"""Initial variables of any network of this package, without compiling or running it."""

import zlib
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pyrseg_jax.models.layers import OUTPUT_INIT_STD, hidden_init, output_init, zero_init

STD_OF_KERNEL: dict[Callable, Callable[[int], float]] = {
    hidden_init: lambda fan_in: np.sqrt(2 / fan_in),
    output_init: lambda fan_in: OUTPUT_INIT_STD,
    zero_init: lambda fan_in: 0.0,
}


def abstract_variables(model: nn.Module, side: int = 64) -> dict:
    """Return shapes and types of `model`'s variables; `side` is any image height and width that it accepts."""
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda key, x: model.init(key, x, False), jax.random.key(0), images)


def initial_variables(model: nn.Module, seed: int, side: int = 64) -> dict:
    """Draw the variables of `model` as NumPy float32 arrays, the same for the same seed on every machine and mesh.

    The distributions are those that `model.init` draws from. This is for speed: XLA needs minutes for the initialisation
    of a large HRNet on CPU, and NumPy two seconds. Each array has a generator of its own, seeded by its path, so that
    changing one part of a network leaves the others as they were.
    """
    kernel_inits: dict[tuple[str, ...], Callable] = {}

    def remember(call, args, kwargs, context):
        if isinstance(context.module, nn.Conv):
            kernel_inits[context.module.path] = context.module.kernel_init
        return call(*args, **kwargs)

    with nn.intercept_methods(remember):
        flat, tree = jax.tree_util.tree_flatten_with_path(abstract_variables(model, side))
    paths = [tuple(entry.key for entry in path) for path, _ in flat]
    leaves = [
        _draw(path, leaf.shape, kernel_inits.get(path[1:-1]), seed) for path, (_, leaf) in zip(paths, flat, strict=True)
    ]
    return jax.tree_util.tree_unflatten(tree, leaves)


def num_parameters(variables: Mapping) -> int:
    """Count the trainable numbers (batch statistics are not)."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables["params"]))


def _draw(path: tuple[str, ...], shape: tuple[int, ...], kernel_init: Callable | None, seed: int) -> np.ndarray:
    kind = path[-1]
    if kind in ("bias", "mean", "gamma"):
        return np.zeros(shape, np.float32)
    if kind in ("scale", "var"):
        return np.ones(shape, np.float32)
    if kind != "kernel":
        raise ValueError(
            f"no rule to initialise {'/'.join(path)}: add one beside those of kernel, bias, gamma, scale, mean, var"
        )
    std = STD_OF_KERNEL[kernel_init](shape[0] * shape[1] * shape[2])
    generator = np.random.default_rng([seed, zlib.crc32("/".join(path).encode())])
    return generator.standard_normal(shape, np.float32) * np.float32(std)
