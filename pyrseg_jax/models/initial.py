"""Initial variables of any network, almost without compiling anything."""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pyrseg_jax.models.layers import OUTPUT_INIT_STD, Kernel, hidden_init, linear_init, output_init, zero_init
from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.models.token_layers import TOKEN_INIT_STD, DepthwiseConv, GlobalResponseNorm, LayerScale, token_init

# Initializers of convolution kernels that NumPy draws: numbers of inputs of an output ("fan in") and of outputs of an input ("fan
# out") → standard deviation.
STD_OF_KERNEL: dict[Callable, Callable[[int, int], float]] = {
    hidden_init: lambda fan_in, fan_out: np.sqrt(2 / fan_in),
    linear_init: lambda fan_in, fan_out: np.sqrt(2 / (fan_in + fan_out)),
    output_init: lambda fan_in, fan_out: OUTPUT_INIT_STD,
    zero_init: lambda fan_in, fan_out: 0.0,
}

Path = tuple[str, ...]  # of a variable: collection, modules …, name
INITIALIZERS = ("kernel_init", "bias_init", "scale_init", "first", "table_init")  # attributes of modules


class _Module(NamedTuple):
    """The record of a module while the network's shapes are traced."""

    kind: type
    kernel_init: Callable | None
    bias_init: Callable | None
    scale_init: Callable | None
    first: Any  # of a layer scale: its first value
    table_init: Callable | None  # of a table of relative positions


def abstract_variables(model: nn.Module, side: int = 64) -> dict:
    """Return shapes and types of the variables of `model`.

    Args:
      model: the model; it is called as `model(images, train)`.
      side: any image height and width that the model accepts, in pixels.
    """
    return jax.tree.map(lambda leaf: leaf, _trace(model, side).variables)  # the caller may change the dictionaries


class _Traced(NamedTuple):
    """Shapes and types of a network's variables, and its modules by path."""

    variables: dict
    modules: Mapping[Path, _Module]


def _trace(model: nn.Module, side: int) -> _Traced:
    """Trace a network's initialization. That takes a second for a large one, so the traces of the last networks are kept."""
    try:
        hash(model)
    except TypeError:  # an attribute, an array for example, cannot be a key
        return _trace_anew(model, side)
    return _trace_once(model, side, jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]


@functools.lru_cache(maxsize=32)
def _trace_once(model: nn.Module, side: int, is_x64: bool) -> _Traced:
    return _trace_anew(model, side)


def _trace_anew(model: nn.Module, side: int) -> _Traced:
    modules: dict[Path, _Module] = {}

    def remember(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        inits = (getattr(module, name, None) for name in INITIALIZERS)
        modules[module.path] = _Module(type(module), *inits)
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((1, side, side, channels_of(model)), jnp.float32)
    with nn.intercept_methods(remember):
        variables = jax.eval_shape(lambda key, x: model.init(key, x, False), jax.random.key(0), images)
    return _Traced(variables, modules)


def channels_of(model: nn.Module) -> int:
    """Return the number of channels of the images that a model takes: those of a segmenter, and 3 for a part of one."""
    return getattr(model, "channels", 3)


def initial_variables(model: nn.Module, seed: int, side: int = 64) -> dict:
    """Draw the variables of `model` as NumPy arrays, the same for the same seed.

    The distributions are those that `model.init` draws from. XLA needs minutes to compile that for a large HRNet on CPU, so NumPy
    draws what such a network is made of: kernels of convolutions and dense layers with an initializer of this package, zero biases,
    normalizations, and layer scales. Each of these arrays has a generator of its own, seeded by its path, so that changing one part
    of a network leaves the other parts as they were; they are the same on every machine and mesh. Every other array is drawn by its
    module's own initializer, in one program that contains nothing else.

    Args:
      model: the model; it is called as `model(images, train)`.
      seed: seed for all random values.
      side: any image height and width that the model accepts, in pixels.
    """
    variables, modules = _trace(model, side)
    flat, tree = jax.tree_util.tree_flatten_with_path(variables)
    shapes = {tuple(entry.key for entry in path): leaf.shape for path, leaf in flat}
    draws = {path: _find_draw(path, modules.get(path[1:-1])) for path in shapes}
    drawn = {path: draw(path, shapes[path], seed) for path, draw in draws.items() if draw is not None}
    missing = [i for i, path in enumerate(shapes) if path not in drawn]
    others = iter(_draw_by_own_initializers(model, seed, side, missing))
    return jax.tree_util.tree_unflatten(tree, [drawn[path] if path in drawn else next(others) for path in shapes])


def num_parameters(variables: Mapping) -> int:
    """Count the trainable numbers; batch statistics are not among them."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables["params"]))


Draw = Callable[[Path, tuple[int, ...], int], np.ndarray]


def _find_draw(path: Path, module: _Module | None) -> Draw | None:
    """Return the function that draws a variable in NumPy; None where only the module's own initializer can."""
    name = path[-1]
    if module is None:
        return None
    if module.kind is BatchNorm:
        starts_at_one = name == "var" or (name == "scale" and module.scale_init is nn.initializers.ones)
        return _draw_ones if starts_at_one else _draw_zeros
    if module.kind is LayerScale:
        return lambda path, shape, seed: np.full(shape, module.first, np.float32)
    if module.kind is GlobalResponseNorm:
        return _draw_zeros
    if module.kind is nn.LayerNorm and (name, module.scale_init) == ("scale", nn.initializers.ones):
        return _draw_ones
    if module.kind is nn.LayerNorm and (name, module.bias_init) == ("bias", nn.initializers.zeros):
        return _draw_zeros
    if (name, token_init) in (("kernel", module.kernel_init), ("table", module.table_init)):
        return _draw_token_kernel
    std_of = STD_OF_KERNEL.get(module.kernel_init) if module.kernel_init is not None else None
    if module.kind in (nn.Conv, nn.ConvTranspose, DepthwiseConv, Kernel) and name == "kernel" and std_of is not None:
        return lambda path, shape, seed: _draw_kernel(path, shape, seed, std_of)
    if (
        module.kind in (nn.Conv, nn.ConvTranspose, DepthwiseConv, nn.Dense)
        and name == "bias"
        and module.bias_init is nn.initializers.zeros
    ):
        return _draw_zeros
    return None


def _draw_zeros(path: Path, shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def _draw_ones(path: Path, shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def _draw_kernel(path: Path, shape: tuple[int, ...], seed: int, std_of: Callable[[int, int], float]) -> np.ndarray:
    std = std_of(shape[0] * shape[1] * shape[2], shape[0] * shape[1] * shape[3])
    generator = np.random.default_rng([seed, zlib.crc32("/".join(path).encode())])
    return generator.standard_normal(shape, np.float32) * np.float32(std)


def _draw_token_kernel(path: Path, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw from a normal distribution, and draw again what lies outside of two standard deviations."""
    generator = np.random.default_rng([seed, zlib.crc32("/".join(path).encode())])
    drawn = generator.standard_normal(shape, np.float32)
    while (is_outside := np.abs(drawn) > 2).any():
        drawn[is_outside] = generator.standard_normal(is_outside.sum(), np.float32)
    return drawn * np.float32(TOKEN_INIT_STD)


def _draw_by_own_initializers(model: nn.Module, seed: int, side: int, leaves: list[int]) -> list[np.ndarray]:
    """Draw these leaves of the variables with JAX. XLA removes all code that they do not need, so no layer is computed."""
    if not leaves:
        return []

    @jax.jit
    def draw(key: jax.Array) -> list[jax.Array]:
        every = jax.tree.leaves(model.init(key, jnp.zeros((1, side, side, channels_of(model))), False))
        return [every[i] for i in leaves]

    return jax.device_get(draw(jax.random.key(seed)))
