"""Count the programs that XLA has compiled for a function."""

from typing import Any


def num_compiled(function: Any) -> int:
    """Return how many programs a jitted function has compiled: one per combination of argument shapes."""
    return function._cache_size()  # jax has no public counter
