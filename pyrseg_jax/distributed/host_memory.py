"""Keep freed host memory in the process, so that the next step or image does not wait for fresh pages; or return it at once.

By default, glibc returns large freed blocks to the system. The next allocation then gets new pages, which the kernel must map
and clear. For a process that allocates the same large arrays again and again, that takes a good share of its time. A server, whose
arrays have many sizes, needs the opposite: its memory must not grow. All functions tune glibc with `mallopt(3)` and change nothing
on other systems. This file imports neither JAX nor NumPy, because the first function must run before JAX starts its threads and the
last one runs in data workers.
"""

import ctypes
import functools
import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_LARGE_BYTES = 2**20  # Chosen: arrays of the network and of images are larger, and most other objects smaller
_WORKER_BYTES = 2**28  # what a data worker may keep: several decoded images and crops


def keep_memory_between_steps() -> bool:
    """If JAX runs on the CPU, let this process keep the memory that a step frees; return whether it does.

    The temporary memory of a training step is a single array. Mapping and clearing its pages anew takes a fifth of the time of a
    step (`docs/log/performance.md`). The price is memory: if a small allocation lands in the freed block, the next step's array
    needs a new place, so a run may take a multiple of that array's size.

    Call this before JAX starts its threads, because each thread would otherwise get a heap of its own. Child processes are not
    affected. Nothing changes where JAX may use an accelerator, on other C libraries than glibc, and where the user has tuned the
    C library by `MALLOC_…` or `GLIBC_TUNABLES`.
    """
    if not sys.platform.startswith("linux") or _is_tuned() or _may_use_an_accelerator():
        return False
    mallopt = _find_mallopt()
    if mallopt is None:
        return False
    # All threads share one heap, no array gets pages of its own, and the end of the heap is never given back.
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1)])


def return_memory() -> bool:
    """Let this process give large freed arrays back to the system at once; return whether it does.

    By default, glibc does so only until such arrays have been freed a few times. Later ones come from a heap that is shared with
    small objects, and those that outlive them keep it from shrinking: a server that answered 3,000 images of four sizes grew by
    40 % (`benchmarks/serving.py`). The price is fresh pages for each image.

    Nothing changes on other C libraries than glibc, and where the user has tuned the C library by `MALLOC_…` or `GLIBC_TUNABLES`.
    """
    if not sys.platform.startswith("linux") or _is_tuned():
        return False
    mallopt = _find_mallopt()
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, _LARGE_BYTES))


@functools.cache
def keep_memory_between_images() -> bool:
    """Let a data worker process keep up to 256 MiB of what it frees for its next image; return whether it does.

    Clearing fresh pages for each decoded image and each crop would take a sixth of the time that a worker spends on an image
    (`benchmarks/input_pipeline.py`). In the main process this does nothing, because there `keep_memory_between_steps` decides.
    """
    if multiprocessing.parent_process() is None:
        return False
    mallopt = _find_mallopt()
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _WORKER_BYTES)) and bool(mallopt(_TRIM_THRESHOLD, _WORKER_BYTES))


def _is_tuned() -> bool:
    return any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)


def _find_mallopt() -> Callable[[int, int], int] | None:
    """Return the C library's `mallopt`, or None where there is none."""
    try:
        return ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return None


def _may_use_an_accelerator() -> bool:
    """Return whether JAX could find an accelerator. JAX itself is not asked, because that would start its threads."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms != "cpu"
    return bool(entry_points(group="jax_plugins")) or importlib.util.find_spec("libtpu") is not None
