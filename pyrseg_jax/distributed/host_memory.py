"""Memory of the host: what the steps on a CPU give back is kept for the next one."""

import ctypes
import importlib.util
import os
import sys
from importlib.metadata import entry_points

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Where JAX runs on the CPU, have the C library keep the memory that is freed; return whether it does now.

    A training step's temporary memory is one array, for which glibc would ask the system each time anew and so have each of its
    pages mapped and cleared again: a fifth of the time of a step (`docs/log/performance.md`). Price: where something small comes
    to lie in what was freed, the next such array needs a place of its own, so a run may take some times its size more. To be
    called before JAX starts its threads, each of which would otherwise keep memory of its own. Other processes that this one
    starts are not affected; other C libraries than glibc, and one that was tuned by `MALLOC_…` or `GLIBC_TUNABLES`, are left
    as they are.
    """
    is_tuned = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if not sys.platform.startswith("linux") or is_tuned or _may_use_an_accelerator():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    # All threads share one heap, no array has pages of its own, and the end of the heap is never given back.
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1)])


def _may_use_an_accelerator() -> bool:
    """Say whether JAX could find one, without asking it, which would start its threads."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms != "cpu"
    return bool(entry_points(group="jax_plugins")) or importlib.util.find_spec("libtpu") is not None
