"""Layers on lists of active cells, against the same layers on masked maps, and what the lists hold."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrseg_jax.models.contexts import active_cells
from pyrseg_jax.models.contexts.active_cells import CHUNK, MAX_CHUNKS, list_cells
from pyrseg_jax.models.contexts.doubling import UpBlock
from pyrseg_jax.models.layers import BasicBlock

SIZE = (2, 17, 19)  # three chunks for each of the two images, the last one not full
CHANNELS = 8
MASKS = ("empty", "single", "few", "uneven", "half", "full")


def draw_mask(name: str, size=SIZE):
    rng = np.random.default_rng(0)
    active = rng.random(size) < {"few": 0.05, "half": 0.5, "full": 2}.get(name, 0)
    if name == "single":
        active[-1, -1, -1] = True
    if name == "uneven":
        active[0] = True
    return active


@given(
    st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 0.1, 0.6, 1])
)
@settings(max_examples=20, deadline=None)
def test_lists_hold_the_active_cells_row_by_row(seed, n, height, width, share):
    active = np.random.default_rng(seed).random((n, height, width)) < share
    with jax.disable_jit():
        cells = list_cells(jnp.asarray(active))
    positions = np.asarray(cells.positions).reshape(n, -1)
    for image in range(n):
        count = active[image].sum()
        expected = np.flatnonzero(active[image])
        np.testing.assert_array_equal(positions[image, :count], expected)
        assert (positions[image, count:] == height * width).all()
        np.testing.assert_array_equal(np.asarray(cells.slots)[image][active[image]], np.arange(count))
        assert (np.asarray(cells.slots)[image][~active[image]] == cells.capacity).all()
        padded = np.pad(np.asarray(cells.slots)[image], 1, constant_values=cells.capacity)
        for slot, (i, j) in enumerate(zip(*np.nonzero(active[image]), strict=True)):
            around = padded[i : i + 3, j : j + 3].ravel()
            np.testing.assert_array_equal(np.asarray(cells.neighbors)[image, slot], around)


@pytest.mark.parametrize("side", [4, 40, 200])
def test_the_number_of_chunks_follows_the_active_cells(side):
    """So does the time: each layer is a loop of as many steps."""
    make = jax.jit(list_cells)
    for count in (0, 1, side, side * side // 3, side * side):
        active = np.zeros((1, side * side), bool)
        active[0, np.random.default_rng(0).permutation(side * side)[:count]] = True
        cells = make(active.reshape(1, side, side))
        assert int(cells.num_chunks) == -(-count // cells.chunk)
        assert cells.chunk == min(side * side, max(CHUNK, -(-side * side // MAX_CHUNKS)))
        assert cells.capacity >= side * side


class Masked(nn.Module):
    """A block that keeps the size and one that doubles it, on a map."""

    dtype: type

    @nn.compact
    def __call__(self, x, active):
        x = BasicBlock(CHANNELS, self.dtype, name="block")(x, False, active)
        return UpBlock(4, 2, self.dtype, name="up")(x, False, active)


def listed(variables, x, active):
    """The same on lists."""
    cells = list_cells(active)
    flat = x.reshape(len(x), -1, x.shape[-1])
    rows = active_cells.make_rows(cells, CHANNELS, x.dtype)
    rows = active_cells.fill(cells, rows, lambda k, _: active_cells.take(flat, active_cells.positions_of(cells, k)))
    rows, _ = active_cells.apply_block(active_cells.pick(variables, "block"), cells, rows, jnp.zeros_like(rows))
    up = active_cells.pick(variables, "up")

    def step(k, found):
        return active_cells.put_children(cells, found, active_cells.up_block(up, cells, rows, k), k)

    n, height, width = active.shape
    return active_cells.each_chunk(cells, jnp.zeros((n, 2 * height, 2 * width, 4), x.dtype), step)


@functools.cache
def ways(dtype):
    """Both ways, jitted, their variables, and a map."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(*SIZE, CHANNELS)), dtype)
    module = Masked(dtype)
    abstract = jax.eval_shape(lambda: module.init(jax.random.key(0), x, jnp.ones(SIZE, bool)))
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: rng.uniform(0.5 if path[-1].key == "var" else -0.5, 1, leaf.shape).astype(np.float32),
        abstract,
    )
    return jax.jit(module.apply), jax.jit(listed), variables, x


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("mask", MASKS)
def test_layers_on_lists_equal_layers_on_masked_maps(mask, dtype):
    on_map, on_list, variables, x = ways(dtype)
    active = jnp.asarray(draw_mask(mask))
    x = jnp.where(active[..., None], x, 0)
    found, expected = (np.asarray(f(variables, x, active), np.float32) for f in (on_list, on_map))
    assert found.any() == (mask != "empty")
    scale = max(np.abs(expected).max(), 1e-30)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5 if dtype == jnp.float32 else 2e-2)
