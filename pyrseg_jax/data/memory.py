"""How a process that only reads images keeps its memory."""

import ctypes
import functools
import multiprocessing

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**28


@functools.cache
def keep_freed_memory() -> bool:
    """Let a worker process keep what it frees, up to 256 MiB, for its next image; tells whether that was possible.

    Otherwise the system gives each decoded image and each crop fresh pages, and clearing these takes a sixth of the time that a
    worker spends on an image (`benchmarks/input_pipeline.py`). The main process is left as it is, and so are other systems than
    Linux with glibc.
    """
    if multiprocessing.parent_process() is None:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
