"""Read single values of untrusted documents; errors name the place, the key, and what was found."""

import math
from typing import Any

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.documents import shorten

MAX_SIDE = 100_000  # pixels; far above any photograph


def value_of(document: Any, key: str, place: str, kind: type | tuple[type, ...], expected: str) -> Any:
    """Return a value of an object; raises UserError if the key is missing or the value has another type."""
    if not isinstance(document, dict):
        raise UserError(f"{place} is {shorten(document)}: expected an object with the key {key!r}")
    if key not in document:
        raise UserError(f"{place} has no {key!r}: expected {expected}; the file may be of another format or be damaged")
    value = document[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{place} has {key}={shorten(value)}: expected {expected}")
    return value


def text_of(document: Any, key: str, place: str) -> str:
    """Return a text that is not empty."""
    text = value_of(document, key, place, str, "a text")
    if not text.strip():
        raise UserError(f"{place} has an empty {key!r}: expected a text")
    return text


def list_of(document: Any, key: str, place: str) -> list:
    """Return a list."""
    return value_of(document, key, place, list, "a list")


def whole_number_of(document: Any, key: str, place: str) -> int:
    """Return a whole number; 3.0 counts as one."""
    value = value_of(document, key, place, (int, float), "a whole number")
    if isinstance(value, float) and not value.is_integer():
        raise UserError(f"{place} has {key}={shorten(value)}: expected a whole number")
    return int(value)


def side_of(document: Any, key: str, place: str) -> int:
    """Return the width or height of a picture, in pixels."""
    value = whole_number_of(document, key, place)
    if not 1 <= value <= MAX_SIDE:
        raise UserError(f"{place} has {key}={value}: expected a number of pixels from 1 to {MAX_SIDE}")
    return value


def points_of(values: Any, place: str, fewest: int = 3) -> np.ndarray:
    """Return points as an array (N, 2), given as pairs or as one flat list x, y, x, y, …

    Raises:
      UserError: naming the place, if there are too few points or a coordinate is not a finite number.
    """
    try:
        points = np.asarray(values, np.float64)
        points = points.reshape(-1, 2) if points.ndim == 1 else points
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"{place} has the points {shorten(values)}: expected pairs of numbers x, y; correct or remove the object"
        ) from error
    if points.ndim != 2 or points.shape[1] != 2 or _has_other_types(values):
        raise UserError(
            f"{place} has the points {shorten(values)}: expected pairs of numbers x, y; correct or remove the object"
        )
    if len(points) < fewest:
        raise UserError(f"{place} has {len(points)} point(s): expected at least {fewest}; correct or remove the object")
    if not np.isfinite(points).all():
        raise UserError(f"{place} has a coordinate that is not a finite number: correct or remove the object")
    return points


def number_from(text: Any, place: str, name: str) -> float:
    """Read a finite number from text; raises UserError naming the place."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{place} has {name}={shorten(text)}: expected a number")
    return number


def _has_other_types(values: Any) -> bool:
    """Tell whether there are texts or truth values among numbers: NumPy would convert them."""
    flat = [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]
    return any(isinstance(item, str | bool) or item is None for item in flat)
