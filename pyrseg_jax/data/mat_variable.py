"""A variable of a MATLAB file, and what it must be to be a label map."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Num

# Chosen: as eight-byte numbers, this many pixels take 800 MB. Label maps of COCO-Stuff have 0.4 million.
MAX_PIXELS = 100_000_000


class DamagedError(Exception):
    """Says in words what is wrong with a MATLAB file; it does not name the file."""


class WrongKindError(Exception):
    """Says in words what a variable is instead of a map of numbers."""


class Variable(NamedTuple):
    """A variable: its name, and a function that reads it."""

    name: str
    read: Callable[[], Num[np.ndarray, "h w"] | None]


def check_shape(shape: tuple[int, ...], kind: str) -> None:
    """Check the header of a variable, before its data are touched.

    Args:
      shape: its sizes.
      kind: NumPy's name of its type, for example "f8", or MATLAB's name of a class that holds no numbers.

    Raises:
      WrongKindError: if it is not a two-dimensional map of real numbers with a size within the limit.
    """
    is_numeric = len(kind) == 2 and kind[0] in "buif"
    if len(shape) != 2 or min(shape) <= 0 or not is_numeric:
        name = np.dtype(kind).name if is_numeric else kind
        raise WrongKindError(f"is not a map of numbers (shape {shape}, type {name})")
    if shape[0] * shape[1] > MAX_PIXELS:
        raise WrongKindError(
            f"has the shape {shape}, {shape[0] * shape[1] / 1e6:.0f} million pixels: the limit is {MAX_PIXELS / 1e6:.0f} million"
        )
