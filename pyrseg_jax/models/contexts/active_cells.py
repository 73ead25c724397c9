"""Layers that compute a list of active cells instead of a map, with static shapes: the time grows with the number of active cells.

The list has room for every cell, so none is ever left out. Each layer is a loop over chunks of the list, which ends after the last
chunk that has an active cell. Cells keep their values in rows, (N, K + 1, C): one for each of K slots, and a last one of zeros,
which takes the place of all inactive cells.

The results are those of layers with a mask, but for rounding. These loops have no gradient backward.

Chosen: the chunks are small, because a processor computes a chunk of some hundred rows as fast per row as a whole map; but a list
has at most `MAX_CHUNKS` of them, because an accelerator asks its host before each.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Shaped

from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.models.xla_cpu import add_relu
from pyrseg_jax.pyramid.levels import to_children

CHUNK = 256  # cells of all images together that a loop computes at a time
MAX_CHUNKS = 64  # of a list

Rows = Float[Array, "n _ c"]
Variables = dict[str, Any]  # "params" and "batch_stats" of a layer


class CellList(NamedTuple):
    """The active cells of a batch of maps (N, h, w), row by row, in K slots per image.

    Attributes:
      positions: (N, chunks, cells of a chunk) by slot, position y · w + x of the cell; h · w in slots that are not used.
      slots: (N, h, w) by position, slot of the cell; K where it is inactive.
      neighbors: (N, K, 9) by slot, slots of the cell's 3 × 3 neighbors.
      num_chunks: chunks up to the last active cell of any image.
    """

    positions: Int32[Array, "n _ _"]
    slots: Int32[Array, "n h w"]
    neighbors: Int32[Array, "n _ 9"]
    num_chunks: Int32[Array, ""]

    @property
    def chunk(self) -> int:
        """Cells of each image in a chunk."""
        return self.positions.shape[2]

    @property
    def capacity(self) -> int:
        """K, the slots of each image."""
        return self.neighbors.shape[1]


def list_cells(active: Bool[Array, "n h w"]) -> CellList:
    """List the active cells of each image."""
    n, h, w = active.shape
    chunk = min(h * w, max(-(-CHUNK // n), -(-h * w // MAX_CHUNKS)))
    capacity = math.ceil(h * w / chunk) * chunk
    count = jnp.cumsum(active.reshape(n, h * w), 1, dtype=jnp.int32)
    slots = jnp.where(active, count.reshape(n, h, w) - 1, capacity)
    # The cell in slot k is where the count reaches k + 1.
    positions = jax.vmap(lambda c: jnp.searchsorted(c, jnp.arange(1, capacity + 1)))(count).astype(jnp.int32)
    positions = jnp.where(jnp.arange(capacity) < count[:, -1:], positions, h * w)
    num_chunks = -(-count[:, -1].max() // chunk)
    padded = jnp.pad(slots, ((0, 0), (1, 1), (1, 1)), constant_values=capacity).reshape(n, -1)
    y, x = positions // w, positions % w
    taps = [(y + a) * (w + 2) + x + b for a in range(3) for b in range(3)]
    neighbors = take(padded, jnp.stack(taps, -1))
    return CellList(positions.reshape(n, -1, chunk), slots, neighbors, num_chunks)


def take(values: Shaped[Array, "n k *c"], at: Int32[Array, "n *m"]) -> Shaped[Array, "n ..."]:
    """Return the values at these indices of each image; those beyond the end give the last value."""
    return jax.vmap(lambda values, at: values.at[at].get(mode="clip"))(values, at)


def make_rows(cells: CellList, features: int, dtype: Any) -> Shaped[Array, "n _ {features}"]:
    """Make rows of zeros for these cells."""
    return jnp.zeros((len(cells.slots), cells.capacity + 1, features), dtype)


def chunk_of(cells: CellList, values: Shaped[Array, "n _ *c"], k: Array) -> Shaped[Array, "n _ *c"]:
    """Return chunk k of values by slot."""
    return jax.lax.dynamic_slice_in_dim(values, k * cells.chunk, cells.chunk, 1)


def positions_of(cells: CellList, k: Array) -> Int32[Array, "n _"]:
    """Return the positions of the cells of chunk k."""
    return jax.lax.dynamic_index_in_dim(cells.positions, k, 1, keepdims=False)


def fill(cells: CellList, rows: Shaped[Array, "n _ *c"], compute: Callable[[Array, Array], Array]) -> Array:
    """Set rows chunk by chunk to `compute(k, rows)` of chunk k; the rows of no chunk stay as they are."""
    return each_chunk(cells, rows, lambda k, rows: put(cells, rows, compute(k, rows), k))


def put(cells: CellList, rows: Shaped[Array, "n _ *c"], new: Shaped[Array, "n _ *c"], k: Array) -> Array:
    """Set the rows of chunk k."""
    return jax.lax.dynamic_update_slice_in_dim(rows, new.astype(rows.dtype), k * cells.chunk, 1)


def each_chunk(cells: CellList, state: Any, step: Callable[[Array, Any], Any]) -> Any:
    """Apply `state = step(k, state)` for each chunk k that has an active cell."""
    return jax.lax.fori_loop(0, cells.num_chunks, step, state)


def convolve(kernel: Float[Array, "3 3 c f"], cells: CellList, rows: Rows, k: Array) -> Float[Array, "n _ f"]:
    """Return the 3×3 convolution at the cells of chunk k, as one matrix product with their neighbors."""
    found = take(rows, chunk_of(cells, cells.neighbors, k))
    return found.reshape(*found.shape[:2], -1) @ kernel.reshape(-1, kernel.shape[-1]).astype(rows.dtype)


def double(kernel: Float[Array, "2 2 f c"], x: Float[Array, "n m c"]) -> Float[Array, "n m 4 f"]:
    """Return the transposed 2×2 convolution: the four children of each cell, row by row."""
    matrix = kernel.transpose(3, 0, 1, 2).reshape(x.shape[-1], -1)
    return (x @ matrix.astype(x.dtype)).reshape(*x.shape[:2], 4, -1)


def normalize(variables: Variables, x: Float[Array, "n m *k c"], is_active: bool = False) -> Float[Array, "n m *k c"]:
    """Normalize rows by the running statistics, with a ReLU if `is_active`."""
    wide = x.reshape(len(x), 1, -1, x.shape[-1])
    return jnp.asarray(BatchNorm(is_active, x.dtype).apply(variables, wide, False)).reshape(x.shape)


def pick(variables: Any, *path: str) -> Variables:
    """Return the variables of a layer by its path; kinds of which it has none are left out."""
    found = {}
    for kind, tree in variables.items():
        for name in path:
            tree = tree.get(name, {})
        found[kind] = tree
    return found


@jax.jit
def apply_block(variables: Variables, cells: CellList, x: Rows, scratch: Rows) -> tuple[Rows, Rows]:
    """Apply a `BasicBlock` to rows.

    Args:
      variables: the block's.
      cells: the cells.
      x: their rows.
      scratch: rows of the same shape for what lies between the block's convolutions; only the last one must be 0.

    Returns:
      The result and the scratch rows. The time does not depend on the rows that are not used.
    """
    kernels = [variables["params"][f"conv{i}"]["kernel"] for i in (1, 2)]

    def first(k: Array, _: Rows) -> Array:
        return normalize(pick(variables, "bn1"), convolve(kernels[0], cells, x, k), is_active=True)

    scratch = fill(cells, scratch, first)

    def second(k: Array, x: Rows) -> Array:
        return add_relu(
            chunk_of(cells, x, k), normalize(pick(variables, "bn2"), convolve(kernels[1], cells, scratch, k))
        )

    return fill(cells, x, second), scratch


def up_block(variables: Variables, cells: CellList, x: Rows, k: Array) -> Float[Array, "n _ 4 f"]:
    """Apply an `UpBlock` with transposed 2×2 convolutions to the rows of chunk k; return the cells' children."""
    params = variables["params"]
    y = normalize(pick(variables, "bn1"), convolve(params["conv1"]["kernel"], cells, x, k), is_active=True)
    y = normalize(pick(variables, "bn2"), double(params["conv2"]["kernel"], y))
    beside = double(params["upsample"]["conv"]["kernel"], chunk_of(cells, x, k))
    return add_relu(normalize(pick(variables, "upsample", "bn"), beside), y)


def child_slots(cells: CellList) -> Int32[Array, "n _ _"]:
    """Return, by position of a child, its index among the children of all rows: 4 · the parent's slot + its place there."""
    places = np.arange(4, dtype=np.int32).reshape(2, 2)
    _, h, w = cells.slots.shape
    return 4 * jnp.asarray(to_children(cells.slots)) + np.tile(places, (h, w))


def put_children(
    cells: CellList, maps: Float[Array, "n H W c"], children: Float[Array, "n _ 4 c"], k: Array
) -> Float[Array, "n H W c"]:
    """Set the children of chunk k's cells in a map."""
    width = cells.slots.shape[2]
    at = positions_of(cells, k)
    corners = 2 * jnp.stack([at // width, at % width], -1)
    numbers = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2, 3), inserted_window_dims=(), scatter_dims_to_operand_dims=(0, 1)
    )

    def put_image(image: Array, corners: Array, new: Array) -> Array:
        new = new.reshape(-1, 2, 2, new.shape[-1]).astype(image.dtype)
        # Slots that are not used have a position below the map.
        return jax.lax.scatter(
            image, corners, new, numbers, unique_indices=True, mode=jax.lax.GatherScatterMode.FILL_OR_DROP
        )

    return jax.vmap(put_image)(maps, corners, children)


def to_map(cells: CellList, rows: Rows) -> Float[Array, "n h w c"]:
    """Return the map of rows; it is 0 at inactive cells."""
    return take(rows, cells.slots)
