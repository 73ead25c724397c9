"""Keep compiled programs between runs."""

import logging
import warnings
from pathlib import Path

import jax

from pyrseg_jax.storage.caches import cache_folder, is_writable
from pyrseg_jax.storage.paths import is_remote

log = logging.getLogger(__name__)


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, in `JAX_COMPILATION_CACHE_DIR` or in the user's cache folder."""
    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]  # defined at run time
    chosen = chosen or str(cache_folder() / "xla")
    jax.config.update("jax_compilation_cache_dir", chosen)
    if not is_remote(chosen) and not is_writable(Path(chosen)):
        log.info("%s cannot be written: programs that are not in it are compiled in every run", chosen)
        # One line is enough; JAX would warn of each program.
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
