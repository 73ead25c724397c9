"""Rows of equal blocks: unrolled, or compiled once and run in a loop, and their activations kept or computed again.

Whatever is chosen, equal blocks are traced once, and each has its own variables under its own name, as published weights and
checkpoints have them.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Execution:
    """How rows of equal blocks are run; no number changes but by rounding.

    Attributes:
      is_scanned: compile a block once and run it in a loop. For TPUs a large network compiles in 0.7 of the time, but the
        loops hand over what the backward pass needs through memory; for GPUs it compiles no sooner. On CPU, XLA runs loop
        bodies on one core.
      remat: one of `REMATS`, what is computed again in the backward pass instead of kept, memory for time: `"off"` nothing;
        `"light"` what is cheap, normalisation and ReLU, from the results of convolutions and sums; `"full"` a whole block
        from what enters it.
    """

    is_scanned: bool = False
    remat: str = "off"


REMATS = ("off", "light", "full")
UNROLLED = Execution()
# What `light` keeps: it takes long to compute, or is small.
_KEPT = ("conv_general_dilated", "dot_general", "reduce_sum")


def run_in_a_row(
    parent: nn.Module,
    make_block: Callable[..., nn.Module],
    names: Sequence[str],
    x: Any,
    train: bool,
    execution: Execution,
) -> Any:
    """Apply blocks one after another: x → … → x, all of one shape.

    Args:
      parent: the module, inside of its compact method, that the blocks belong to.
      make_block: takes `name` or `parent` and returns the block, a module that is called with (x, train).
      names: of the blocks.
      x: array, or tuple of arrays.
      train: whether batch statistics are of the batch, and updated.
      execution: how.
    """
    if parent.is_initializing():
        for name in names:
            x = make_block(name=name)(x, train)
        return x

    apply = functools.partial(_apply, make_block(parent=None), train, execution)
    each = [{kind: tree[name] for kind, tree in parent.variables.items() if name in tree} for name in names]
    if execution.is_scanned and len(names) > 1:
        x, updates = jax.lax.scan(apply, x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each))
        updates = [jax.tree.map(lambda leaf, k=k: leaf[k], updates) for k in range(len(names))]
    else:
        updates = []
        for variables in each:
            x, update = apply(x, variables)
            updates.append(update)
    for name, update in zip(names, updates, strict=True):
        for kind, tree in update.items():
            parent.put_variable(kind, name, tree)
    return x


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _apply(block: nn.Module, train: bool, execution: Execution, x: Any, variables: dict) -> tuple[Any, dict]:
    """Apply one block, and return what becomes of its batch statistics; equal blocks are traced and differentiated once."""

    def plain(x, variables):
        if not train:
            return block.apply(variables, x, train), {}
        return block.apply(variables, x, train, mutable=["batch_stats"])

    if execution.remat == "off":
        return plain(x, variables)
    policy = _is_kept if execution.remat == "light" else None
    # In a loop nothing is merged with the forward pass anyway, and the guard against that costs time.
    return jax.checkpoint(plain, prevent_cse=not execution.is_scanned, policy=policy)(x, variables)


def _is_kept(primitive, *_, **__) -> bool:
    return primitive.name in _KEPT
