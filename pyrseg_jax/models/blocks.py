"""Apply a row of equal blocks, each with its own variables, and choose which activations the backward pass keeps.

Equal blocks are traced and differentiated once, however many there are. Each block still has its own variables under its own
name, as published weights and checkpoints have them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

# What the backward pass recomputes instead of keeping in memory (rematerialization). The results change by rounding at most.
REMATS = {
    "off": "recompute nothing: fastest, needs the most memory",
    "light": "recompute cheap operations (normalization, ReLU) from the results of convolutions",
    "full": "recompute each block from its input: slowest, needs the least memory",
}
# Primitives whose results "light" keeps, because they take long to compute or are small.
_KEPT = ("conv_general_dilated", "dot_general", "reduce_sum")


def apply_blocks(
    parent: nn.Module,
    make_block: Callable[..., nn.Module],
    names: Sequence[str],
    x: Any,
    train: bool,
    remat: str = "off",
    mask: Any = None,
    *,
    each: Sequence[Any] | None = None,
) -> Any:
    """Apply equal blocks one after another, and return what the last one returns; see `apply_each_block`."""
    return apply_each_block(parent, make_block, names, x, train, remat, mask, each=each)[-1]


def apply_each_block(
    parent: nn.Module,
    make_block: Callable[..., nn.Module],
    names: Sequence[str],
    x: Any,
    train: bool,
    remat: str = "off",
    mask: Any = None,
    *,
    each: Sequence[Any] | None = None,
) -> list[Any]:
    """Apply equal blocks one after another.

    The results are those of `for name in names: x = make_block(name=name)(x, train)`. That loop would trace every block
    on its own, and tracing and lowering a large HRNet would take several times as long.

    Args:
      parent: the module that owns the blocks. Call this function inside of its compact method.
      make_block: a function that takes `name` or `parent` and returns a block. The block is called as `block(x, train)` and keeps
        the shape of x.
      names: the blocks' names, one for each block to apply.
      x: an array, or a tuple of arrays.
      train: whether to normalize by the statistics of the batch and update the running ones.
      remat: one of `REMATS`.
      mask: a third argument of every block, such as the positions that it computes; None: blocks get only two.
      each: instead of `mask`, the third argument of each block, all of the same shape, such as its factors of drop path.

    Returns:
      What each block returns.
    """
    results = []
    masks = [mask] * len(names) if each is None else each
    if parent.is_initializing():
        for name, mask in zip(names, masks, strict=True):
            block, x = make_block(name=name), results[-1] if results else x
            results.append(block(x, train) if mask is None else block(x, train, mask))
        return results

    apply = functools.partial(_apply, make_block(parent=None), train, remat)
    for name, mask in zip(names, masks, strict=True):
        x, updates = apply(x, {kind: tree[name] for kind, tree in parent.variables.items() if name in tree}, mask)
        for kind, tree in updates.items():
            parent.put_variable(kind, name, tree)
        results.append(x)
    return results


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _apply(block: nn.Module, train: bool, remat: str, x: Any, variables: dict, mask: Any) -> tuple[Any, dict]:
    """Apply one block; also return its updated batch statistics. Being jitted, it is traced once for equal arguments."""

    def plain(x: Any, variables: dict, mask: Any) -> tuple[Any, Any]:
        masks = () if mask is None else (mask,)
        if not train:
            return block.apply(variables, x, train, *masks), {}
        return block.apply(variables, x, train, *masks, mutable=["batch_stats"])

    if remat == "off":
        return plain(x, variables, mask)
    return jax.checkpoint(plain, policy=_is_kept if remat == "light" else None)(x, variables, mask)


def _is_kept(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in _KEPT
