"""Optimizers by name: how gradients become changes of the parameters.

All of them take the same schedule, decay weights, and give the parameters outside the backbone, and the layers inside it, learning
rates of their own. Optax computes them; this file says which parameter gets what.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from optax import contrib

from pyrseg_jax.training.freezing import is_match

OPTIMIZERS = {
    "sgd": "gradient descent with momentum; weight decay is added to the gradient, as in the published HRNet recipes",
    "adamw": "Adam with decoupled weight decay (Loshchilov & Hutter 2019), as in the recipes of transformers",
    "muon": "orthogonalized momentum (Jordan et al. 2024) for the matrices of hidden layers, AdamW for everything else",
}
DECAY_MASKS = {
    "all": "every parameter",
    "kernels": "kernels of convolutions and dense layers: no biases, normalizations, layer scales, positions, tokens or codewords",
}
BACKBONE, HEAD, MATRICES, FROZEN = "backbone", "head", "_matrices", "frozen"  # the labels of parameters, and a suffix
# Layers that predict: their kernels are the rows of a table, one per class, and not maps between features.
CLASSIFIERS = ("classify", "unity_")
IMAGE_CHANNELS = 3

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """The arguments of an optimizer. Those of other optimizers than the named one have no effect.

    Attributes:
      name: a key of `OPTIMIZERS`.
      momentum: of `sgd`: the decay of the running sum of gradients, 0 … 1.
      nesterov: whether the momentum looks ahead; None: only that of `muon` does.
      beta1, beta2, epsilon: of `adamw`, and of `muon` where it uses Adam: the decays of both moments, and what is added to a root.
      muon_momentum, muon_steps: the decay of Muon's momentum, and the Newton-Schulz iterations that orthogonalize it.
      muon_rms: the root mean square of an update at a learning rate of 1. That of Adam is about 0.2.
      weight_decay: factor on the parameters; where they are subtracted depends on the optimizer.
      decay_mask: a key of `DECAY_MASKS`.
      head_multiplier: multiple of the schedule at which all parameters outside the backbone learn.
      layer_decay: factor from each layer of the backbone to the one before it; None: all layers learn alike.
      depth_of: path of a parameter inside the backbone → number of its layer, 0 at the images; needed by `layer_decay`.
      frozen: patterns of parameters that stay as they are; see `freezing`.
    """

    name: str = "sgd"
    momentum: float = 0.9
    nesterov: bool | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    muon_momentum: float = 0.95
    muon_steps: int = 5
    muon_rms: float = 0.2
    weight_decay: float = 1e-4
    decay_mask: str = "all"
    head_multiplier: float = 1.0
    layer_decay: float | None = None
    depth_of: Callable[[Path], int] | None = None
    frozen: tuple[str, ...] = ()


def make_optimizer(schedule: optax.Schedule, settings: OptimizerSettings) -> optax.GradientTransformation:
    """Make an optimizer.

    Args:
      schedule: step → learning rate of the backbone.
      settings: its name and arguments.

    Source: `sgd` is PyTorch's: weight decay is added to the gradient before the momentum ("coupled"). `adamw` and `muon` subtract
      learning rate · decay · parameter, beside the update. The learning rate of a backbone layer is layer_decay^(L + 1 - layer)
      times the schedule, with the number L of the last layer, as in BEiT's code (Bao et al. 2022).
    Chosen: Muon takes the kernels of convolutions and dense layers, except for those that read the image, that convolve each
      channel alone, or that predict (`CLASSIFIERS`). Its updates are scaled to the root mean square of Adam's (Liu et al. 2025,
      "Muon is scalable for LLM training"), so that one learning rate and one weight decay serve both.
    """
    parts: dict[Hashable, optax.GradientTransformation] = {}
    for part, multiplier in ((BACKBONE, 1.0), (HEAD, settings.head_multiplier)):
        rate = _times(multiplier, schedule)
        parts[part] = _make_sgd(rate, settings) if settings.name == "sgd" else _make_adamw(rate, settings)
        if settings.name == "muon":
            parts[part + MATRICES] = _make_muon(rate, settings)
    if settings.frozen:
        parts[FROZEN] = optax.set_to_zero()
    optimizer = optax.partition(parts, lambda params: _map_with_path(_labeler(settings), params))
    if settings.layer_decay is None:
        return optimizer
    assert settings.depth_of is not None, "a decay by layers needs the order of the layers"
    return optax.chain(optimizer, optax.stateless(_slower_below(settings.layer_decay, settings.depth_of)))


def is_decayed(path: Path) -> bool:
    """Return whether weight decay with the mask "kernels" touches a parameter."""
    return path[-1] == "kernel"


def is_matrix(path: Path, shape: tuple[int, ...]) -> bool:
    """Return whether Muon takes a parameter; see `make_optimizer`."""
    if path[-1] != "kernel" or len(shape) not in (2, 4) or path[-2].startswith(CLASSIFIERS):
        return False
    return len(shape) == 2 or shape[2] not in (1, IMAGE_CHANNELS)


def _make_sgd(rate: optax.Schedule, settings: OptimizerSettings) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(settings.weight_decay, _mask(settings)),
        optax.sgd(rate, momentum=settings.momentum, nesterov=bool(settings.nesterov)),
    )


def _make_adamw(rate: optax.Schedule, settings: OptimizerSettings) -> optax.GradientTransformation:
    return optax.adamw(
        rate,
        settings.beta1,
        settings.beta2,
        settings.epsilon,
        weight_decay=settings.weight_decay,
        mask=_mask(settings),
        # Beside Muon, whose momentum alone the key describes, Adam is the plain one.
        nesterov=bool(settings.nesterov) and settings.name == "adamw",
    )


def _make_muon(rate: optax.Schedule, settings: OptimizerSettings) -> optax.GradientTransformation:
    muon = contrib.scale_by_muon(
        ns_steps=settings.muon_steps,
        beta=settings.muon_momentum,
        eps=settings.epsilon,
        nesterov=settings.nesterov is not False,
        weight_dimension_numbers=lambda stacks: jax.tree.map(_sides, stacks),
    )
    return optax.chain(
        _take_stacks(muon),
        optax.stateless(lambda updates, _: jax.tree.map(lambda x: x * (settings.muon_rms * _longer_side(x)), updates)),
        optax.add_decayed_weights(settings.weight_decay),
        optax.scale_by_learning_rate(rate),
    )


def _take_stacks(muon: optax.GradientTransformation) -> optax.GradientTransformation:
    """Give Muon all kernels of one shape as a stack; its state stays that of single kernels.

    A network has hundreds of kernels and few shapes, and each kernel takes fifteen products of small matrices, which wait for one
    another. Products of stacks are fewer and larger. The time in which XLA:CPU reads a program from the compilation cache grows
    with the square of their number, too (docs/log/performance.md).
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        found, after = typing.cast(
            tuple[Any, contrib.MuonState], muon.update(_stack(updates), state._replace(mu=_stack(state.mu)), params)
        )
        return _unstack(found, updates), after._replace(mu=_unstack(after.mu, updates))

    return optax.GradientTransformation(muon.init, update)


def _stack(tree: Any) -> dict[str, jax.Array]:
    """Return the leaves, those of one shape as one array (number, *shape)."""
    groups: dict[str, list] = {}
    for leaf in jax.tree.leaves(tree):
        groups.setdefault(str(leaf.shape), []).append(leaf)
    return {shape: jnp.stack(leaves) for shape, leaves in groups.items()}


def _unstack(stacks: Any, like: Any) -> Any:
    """Return the leaves of stacks in the places of the tree that was stacked."""
    rest = {shape: iter(jnp.unstack(stack)) for shape, stack in stacks.items()}
    return jax.tree.map(lambda leaf: next(rest[str(leaf.shape)]), like)


def _sides(stack: Any) -> contrib.MuonDimensionNumbers:
    """Take each kernel (…, inputs, outputs) of a stack as a matrix from all inputs of an output to the outputs."""
    return contrib.MuonDimensionNumbers(tuple(range(1, stack.ndim - 1)), stack.ndim - 1)


def _longer_side(kernel: Any) -> float:
    """Return the root of the longer side of a kernel as a matrix: the inverse root mean square of an orthogonal one."""
    outputs = kernel.shape[-1]
    return math.sqrt(max(kernel.size // outputs, outputs))


def _mask(settings: OptimizerSettings) -> Callable[[Any], Any] | None:
    if settings.decay_mask == "all":
        return None
    return lambda params: _map_with_path(lambda path, _: is_decayed(path), params)


def _labeler(settings: OptimizerSettings) -> Callable[[Path, Any], str]:
    """Return the function that labels a parameter with the transformation that it gets."""

    def label(path: Path, leaf: Any) -> str:
        if is_match(path, settings.frozen):
            return FROZEN
        part = BACKBONE if path[0] == BACKBONE else HEAD
        return part + MATRICES if settings.name == "muon" and is_matrix(path, leaf.shape) else part

    return label


def _slower_below(decay: float, depth_of: Callable[[Path], int]) -> Callable[[Any, Any], Any]:
    """Return the function that scales the updates of the backbone's layers by how far they are below the heads."""

    def scale(updates: Any, _: Any) -> Any:
        depths = {path: depth_of(path[1:]) for path in flatten_dict(updates) if path[0] == BACKBONE}
        last = max(depths.values(), default=0)
        factors = {path: decay ** (last + 1 - depth) for path, depth in depths.items()}
        return _map_with_path(lambda path, x: x * factors.get(path, 1.0), updates)

    return scale


def _times(multiplier: float, schedule: optax.Schedule) -> optax.Schedule:
    return lambda step: multiplier * schedule(step)


def _map_with_path(function: Callable[[Path, Any], Any], tree: Mapping) -> Any:
    """Apply (path, leaf) → leaf to a tree of nested dictionaries."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(tuple(entry.key for entry in path), leaf), tree)
