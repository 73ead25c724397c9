"""Checksums of arrays on their devices: the same for any sharding, so that a restored state can be held against the saved one.

Orbax writes no checksums of what an array holds: a flipped bit on disk would come back as a weight of 1e38, in silence.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from pyrseg_jax.distributed import mesh as mesh_lib

# Two sums with keys of their own: 64 bits.
LANES = (0x9E3779B9, 0x7F4A7C15)


def checksums(tree: Any) -> dict[str, str]:
    """Return path of each array → 16 hexadecimal digits that change when any of its bits does.

    All processes that hold a part of the arrays must call it, and each gets all of the result.
    """
    # One small program per shape and sharding, not one large one that would be compiled anew for every network.
    found = {_name(path): _sum_of(array) for path, array in jax.tree_util.tree_leaves_with_path(tree)}
    return {name: "".join(f"{int(lane):08x}" for lane in lanes) for name, lanes in jax.device_get(found).items()}


def differing(tree: Any, expected: dict[str, str]) -> list[str]:
    """List the paths of arrays whose checksum is not the expected one, or that none is expected of."""
    return [name for name, found in checksums(tree).items() if expected.get(name) != found]


def sum_bits(array: Array) -> UInt32[Array, "2"]:
    """Sum, modulo 2^32 and once per lane, a mixture of each element's bits with its position.

    The mixture is one-to-one in the bits, so a change within a single element always changes the sum; anything else, like
    exchanged or zeroed blocks, goes unnoticed once in 2^64. The order of the sum does not matter: integers do not round.

    Source: the mixture is the finalizer of MurmurHash3 (A. Appleby, public domain), a bijection of 32-bit words.
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
