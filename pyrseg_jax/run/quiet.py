"""Keep libraries from logging what a user cannot use."""

import contextlib
import logging
from collections.abc import Iterator

# These log every file that they read or write, or where their own caches are.
NOISY_LIBRARIES = ("absl", "orbax", "jax", "tensorflow_datasets", "etils", "grain", "matplotlib", "httpx", "httpx2")
# Orbax logs stack traces here for errors that a user gets as one line.
TRACING_LIBRARIES = ("absl", "asyncio")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the libraries inside of the context, then set their loggers as they were: the program around us is the user's."""
    loggers = [logging.getLogger(name) for name in {*NOISY_LIBRARIES, *TRACING_LIBRARIES}]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
