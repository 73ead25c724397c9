"""Keep libraries from logging what a user cannot use, without touching how the user's program logs."""

import contextlib
import logging
from collections.abc import Iterator

# These log every file that they read or write, and stack traces for errors that a user gets as one line.
LIBRARIES = ("absl", "orbax", "jax", "tensorflow_datasets", "etils", "grain", "asyncio")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the libraries' loggers for the duration of the context, then set them as they were."""
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
