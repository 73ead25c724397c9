"""Freezing: parts of the network that training leaves exactly as they are, chosen by patterns over the paths of their variables.

The path of a variable is that of its module, and its name, joined by "/": `backbone/stage1_block1/conv1/kernel`. In a pattern, `*`
stands for any text, including "/", and `?` for one character. A pattern that matches the path of a module stands for everything in
the module: `backbone` and `backbone/*` choose the same variables.
"""

import difflib
import fnmatch
import itertools
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.normalization import FROZEN, STATISTICS

Path = tuple[str, ...]
MAX_NEAR = 3  # paths that an error suggests


def read_patterns(text: str | None) -> tuple[str, ...]:
    """Return the patterns of a text that joins them with commas; none for None."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def is_match(path: Path, patterns: Sequence[str]) -> bool:
    """Return whether a pattern matches the path of a variable, or that of a module that contains it."""
    places = itertools.accumulate(path, lambda outer, name: f"{outer}/{name}")
    return any(fnmatch.fnmatchcase(place, pattern) for place in places for pattern in patterns)


def check_patterns(patterns: Sequence[str], params: Mapping) -> None:
    """Raise UserError for a pattern that matches no parameter, or if all parameters are frozen.

    Args:
      patterns: the patterns.
      params: the network's parameters, or their shapes.
    """
    paths = list(flatten_dict(params))
    for pattern in patterns:
        if not any(is_match(path, [pattern]) for path in paths):
            places = {"/".join(path[:length]) for path in paths for length in range(1, len(path) + 1)}
            near = difflib.get_close_matches(pattern.rstrip("/*"), sorted(places), MAX_NEAR, 0.5)
            near = near or sorted({path[0] for path in paths})
            raise UserError(
                f"freeze={pattern}: no parameter of the network has such a path; the nearest paths are {', '.join(near)}"
            )
    if patterns and all(is_match(path, patterns) for path in paths):
        raise UserError(
            f"freeze={','.join(patterns)}: these patterns match every parameter, and nothing is left to train: leave one out"
        )


def split(tree: Mapping, patterns: Sequence[str]) -> tuple[dict, dict]:
    """Split variables of one kind into those that train and those that are frozen, as flat dictionaries by path."""
    free, frozen = {}, {}
    for path, leaf in flatten_dict(tree).items():
        (frozen if is_match(path, patterns) else free)[path] = leaf
    return free, frozen


def keep(before: dict, after: dict, patterns: Sequence[str]) -> dict:
    """Return `after`, with its frozen variables as they were before, bit for bit."""
    if not patterns:
        return after
    free, _ = split(after, patterns)
    _, frozen = split(before, patterns)
    return unflatten_dict(free | frozen)


def differentiable(params: dict, patterns: Sequence[str]) -> tuple[dict, Callable[[dict], dict]]:
    """Return what to differentiate by, and a function that completes it to all parameters.

    The backward pass ends where only frozen parameters are left, so a frozen part below all others costs only its forward pass.
    """
    if not patterns:
        return params, lambda free: free
    free, frozen = split(params, patterns)
    return free, lambda free: unflatten_dict(free | frozen)


def with_zeros(gradients: dict, params: dict, patterns: Sequence[str]) -> dict:
    """Complete gradients by what `differentiable` returned to a tree like the parameters, with zeros for the frozen ones."""
    if not patterns:
        return gradients
    _, frozen = split(params, patterns)
    return unflatten_dict(gradients | {path: jnp.zeros_like(leaf) for path, leaf in frozen.items()})


def marks(batch_stats: dict, patterns: Sequence[str]) -> dict:
    """Return the collection of variables that tells frozen batch normalizations to use their running statistics."""
    if not patterns:
        return {}
    _, frozen = split(batch_stats, patterns)
    return {FROZEN: unflatten_dict({(*path[:-1], STATISTICS): np.zeros((), np.bool_) for path in frozen})}
