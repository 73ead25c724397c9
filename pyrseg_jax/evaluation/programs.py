"""Count the programs that XLA has compiled for a function."""

from typing import Any


def num_compiled(function: Any) -> int:
    """Return how many programs a jitted function has compiled: one per combination of argument shapes."""
    return function._cache_size()  # jax has no public counter


def forget_programs(function: Any) -> None:
    """Free the programs that a jitted function has compiled; the next call compiles again, or reads the cache on the disk."""
    function.clear_cache()
