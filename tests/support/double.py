"""Run our networks in float64, to compare their gradients with a reference without the noise of rounding."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from pyrseg_jax.models import segmenter


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Let networks that are built and run inside compute in float64 throughout; pass `dtype="float64"` to `build_segmenter`.

    Our modules convert energies, softmaxes, norms and logits to at least float32 by `jnp.float32`, whatever their own number format
    is. Here that name means float64, so that the very same program computes all of it with more digits.

    In float32, a value before a ReLU that is nearly 0 may be rounded to the other side of 0 than in the reference. The gradient of
    that position is then there or not, and the gradients of all layers before it change by some hundredths. In float64, no
    value is so near to 0, and every gradient must agree.
    """
    formats, single = segmenter.DTYPES, jnp.float32
    with jax.enable_x64(True):
        segmenter.DTYPES, jnp.float32 = formats | {"float64": np.float64}, jnp.float64
        try:
            yield
        finally:
            segmenter.DTYPES, jnp.float32 = formats, single


def to_float64(variables: dict) -> dict:
    """Return variables with the same values in float64."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
