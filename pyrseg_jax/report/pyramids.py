"""Store a prediction so that a browser can fuse its pyramids anew: for each position of the slider exactly as `fuse` does."""

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt, UInt8

from pyrseg_jax.reporting.result import Result

STEPS = 100  # the slider has the multiples of 1 / STEPS


def thresholds_of(own: float) -> list[float]:
    """Return the positions of the slider: the multiples of 0.01, and the threshold τ of the run, in ascending order."""
    return sorted({own, *(step / STEPS for step in range(STEPS + 1))})


def quantize(unity: Float[np.ndarray, "h w"], thresholds: Sequence[float]) -> UInt8[np.ndarray, "h w"]:
    """Return the number of positions of the slider at which each cell counts as a unit-cell.

    A cell counts at the position k, that is `unity >= thresholds[k]`, exactly if its number is above k. So one byte per cell
    decides as `fuse` does, without the rounding that storing the probability in fewer bits would bring.

    Args:
      unity: the probabilities that cells hold a single class.
      thresholds: at most 255 ascending numbers.
    """
    # `fuse` compares in the type of the probabilities, to which it rounds τ.
    rounded = np.array(thresholds, np.float64).astype(unity.dtype).astype(np.float32)
    return np.searchsorted(rounded, unity.astype(np.float32), side="right").astype(np.uint8)


def pack(values: UInt[np.ndarray, "h w"]) -> dict[str, Any]:
    """Compress a map of bytes or 16-bit numbers without loss, for `unpack` in `report.js`."""
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    return {
        "height": values.shape[0],
        "width": values.shape[1],
        "bytes": values.dtype.itemsize,
        "data": base64.b64encode(zlib.compress(plain, 9)).decode(),
    }


def pack_pyramids(result: Result, thresholds: Sequence[float]) -> dict[str, Any]:
    """Return the classes of each level and the quantized unity of each level above the finest, coarse → fine."""
    return {
        "strides": list(result.strides),
        "semantic": [pack(classes) for classes in result.semantic],
        "unity": [pack(quantize(unity, thresholds)) for unity in result.unity],
    }
