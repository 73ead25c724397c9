"""Checksums of arrays, computed on their devices and independent of the sharding.

Orbax stores no checksum of an array's content: a flipped bit on disk would silently come back as a weight of 1e38. These
checksums are saved with each checkpoint and compared with those of the restored arrays.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from pyrseg_jax.distributed import mesh as mesh_lib

# Two sums, each with a key of its own, give 64 bits. The keys are arbitrary odd-looking constants (golden ratio and its mix).
LANES = (0x9E3779B9, 0x7F4A7C15)
WORDS_AT_A_TIME = 1 << 16  # stay in a core's cache


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
    arrays = {_name(path): array for path, array in jax.tree_util.tree_leaves_with_path(tree)}
    # Compiling a program for each shape takes longer than adding up the bits of arrays that are in this process's memory.
    on_host = {name: host_checksum(np.asarray(array)) for name, array in arrays.items() if _is_in_memory(array)}
    found = on_host | checksums({name: array for name, array in arrays.items() if name not in on_host})
    return [name for name in arrays if expected.get(name) != found[name]]


def host_checksum(array: np.ndarray) -> str:
    """Return the checksum of an array in memory, computed with NumPy: the same as that of `checksums`."""
    words = np.ascontiguousarray(array).reshape(-1)
    words = words.view(np.dtype(f"uint{8 * min(array.dtype.itemsize, 4)}"))
    sums = [0] * len(LANES)
    for first in range(0, words.size, WORDS_AT_A_TIME):
        piece = words[first : first + WORDS_AT_A_TIME].astype(np.uint32)
        position = np.arange(first, first + piece.size).astype(np.uint32)
        for i, lane in enumerate(LANES):
            sums[i] += int(_mix(piece ^ _mix(position + np.uint32(lane))).sum(dtype=np.uint32))
    return "".join(f"{total % 2**32:08x}" for total in sums)


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


def _is_in_memory(array: Any) -> bool:
    if isinstance(array, np.ndarray):
        return True
    return array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices())


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


def _mix(words: Any) -> Any:
    """Mix the bits of words (uint32), of NumPy or of jax."""
    words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
    return words ^ (words >> 16)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
