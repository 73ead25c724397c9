"""Checksums of arrays, computed on their devices and independent of the sharding.

Orbax stores no checksum of an array's content: a flipped bit on disk would silently come back as a weight of 1e38. These
checksums are saved with each checkpoint and compared with those of the restored arrays.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from pyrseg_jax.distributed import mesh as mesh_lib

# Two sums, each with a key of its own, give 64 bits. The keys are arbitrary odd-looking constants (golden ratio and its mix).
LANES = (0x9E3779B9, 0x7F4A7C15)


def checksums(tree: Any) -> dict[str, str]:
    """Return the checksum of each array, 16 hexadecimal digits that change when any bit of the array does.

    All processes that hold a part of the arrays must call this function together; each gets the whole result.

    Args:
      tree: any tree of arrays.

    Returns:
      A dict from the array's path, like `params/layer/kernel`, to its checksum.
    """
    # One small program per shape and sharding instead of one large program, which each new network would compile again.
    found = {_name(path): _sum_of(array) for path, array in jax.tree_util.tree_leaves_with_path(tree)}
    return {name: "".join(f"{int(lane):08x}" for lane in lanes) for name, lanes in jax.device_get(found).items()}


def differing(tree: Any, expected: dict[str, str]) -> list[str]:
    """Return the paths of the arrays whose checksum differs from the expected one, or for which none is expected."""
    return [name for name, found in checksums(tree).items() if expected.get(name) != found]


def sum_bits(array: Array) -> UInt32[Array, "2"]:
    """Sum, modulo 2^32 and once per lane, a hash of each element's bits and position.

    The hash is one-to-one in the bits, so a change within a single element always changes the sum. Any other change, such
    as swapped or zeroed blocks, goes unnoticed with a probability of 2^-64. Integer sums do not round, so the order of
    summation, and with it the sharding, does not matter.

    Source: the hash is the finalizer of MurmurHash3 (A. Appleby, public domain), a bijection of 32-bit words.
    """
    words = _as_words(array)
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis, length in enumerate(words.shape):
        position = position * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return jnp.stack([jnp.sum(_mix(words ^ _mix(position + jnp.uint32(lane))), dtype=jnp.uint32) for lane in LANES])


def _sum_of(array: jax.Array) -> jax.Array:
    return _summing(mesh_lib.replicated_like(array))(array)


@functools.lru_cache
def _summing(sharding: jax.sharding.Sharding) -> Callable:
    return jax.jit(sum_bits, out_shardings=sharding)


def _as_words(array: Array) -> UInt32[Array, "..."]:
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    size = array.dtype.itemsize
    if size == 8:
        return jax.lax.bitcast_convert_type(array, jnp.uint32)
    return jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * size}")).astype(jnp.uint32)


def _mix(words: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
