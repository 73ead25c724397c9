"""QGN's sparse decoder outside of training: it computes active cells only, and skips all others."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from pyrseg_jax.models.contexts.active_cells import (
    CellList,
    Rows,
    Variables,
    apply_block,
    child_slots,
    chunk_of,
    double,
    each_chunk,
    fill,
    list_cells,
    make_rows,
    pick,
    positions_of,
    put,
    put_children,
    take,
    to_map,
    up_block,
)
from pyrseg_jax.models.contexts.quadtree import COMPOSITE, STRIDES, is_composite
from pyrseg_jax.models.layers import ConvNormAct
from pyrseg_jax.pyramid.levels import to_children


class Decoded(NamedTuple):
    """The result of the decoder.

    Attributes:
      quarter: the map of stride 4.
      found: logits of each pixel's coarsest cell that is not composite, without the composite class.
      quadtree: logits of the strides 16, 8, 4 and 2; 0 at cells that were skipped.
      active: the cells of these that were computed.
    """

    quarter: Float[Array, "n _ _ _"]
    found: Float[Array, "n H W c"]
    quadtree: tuple[Float[Array, "n _ _ c"], ...]
    active: tuple[Bool[Array, "n _ _"], ...]


def decode_active(
    variables: Variables,
    maps: Mapping[int, Array],
    logits: Float[Array, "n h w c"],
    num_blocks: Mapping[int, int],
    num_last_blocks: int,
    dtype: DTypeLike,
) -> Decoded:
    """Decode the cells below composite ones.

    Args:
      variables: those of `QGN`, sparse.
      maps: by stride, 32 … 2.
      logits: those of stride 32, with the composite class.
      num_blocks: by stride, blocks that keep the size before the one that doubles it.
      num_last_blocks: blocks at stride 2 before the last transposed convolution.
      dtype: number format of the computation.
    """
    goes_on = is_composite(logits)
    cells = list_cells(goes_on)
    x = _enter(variables, cells, maps[32], None, 32, dtype)
    found, quarter = _classes(logits), jnp.zeros(0)
    quadtree, active = [], []
    for stride in STRIDES[1:-1]:
        height, width = maps[stride].shape[1:3]
        x = _keep_size(variables, f"up_{stride}_block", num_blocks[stride], cells, x)
        last = f"up_{stride}_block_{num_blocks[stride]}"
        children, is_open, found, level = _descend(variables, last, stride, cells, x, found)
        found = found[:, :height, :width]
        quadtree.append(level[:, :height, :width])
        active.append(to_children(goes_on)[:, :height, :width])
        below = child_slots(cells)[:, :height, :width]
        goes_on = take(is_open, below) & active[-1]
        cells = list_cells(goes_on)
        x = _enter(variables, cells, maps[stride], (children, below), stride, dtype)
        quarter = to_map(cells, x) if stride == 4 else quarter
    x = _keep_size(variables, "last_block", num_last_blocks, cells, x)
    finest = variables["params"]["finest"]

    def finish(k: Array, found: Array) -> Array:
        # Copying the map of stride 1 for leaving out a class would take longer than most loops.
        new = double(finest["kernel"][:, :, 1:], chunk_of(cells, x, k)) + finest["bias"][1:].astype(x.dtype)
        return put_children(cells, found, new, k)

    found = each_chunk(cells, jnp.asarray(to_children(found)), finish)
    return Decoded(quarter, found, tuple(quadtree), tuple(active))


def _classes(logits: Float[Array, "n *m c"]) -> Float[Array, "n *m _"]:
    """Leave out the composite class."""
    assert COMPOSITE == 0
    return logits[..., 1:]


def _enter(
    variables: Variables, cells: CellList, like: Array, above: tuple[Array, Array] | None, stride: int, dtype: DTypeLike
) -> Rows:
    """Return the rows of cells that go on: the skip connection's, and what the cells above say of them."""
    n, h, w, channels = like.shape
    skip = pick(variables, f"skip_{stride}")
    features = skip["params"]["bn"]["scale"].shape[0]
    layer = ConvNormAct(features, dtype=dtype)

    def compute(k: Array, _: Rows) -> Array:
        at = positions_of(cells, k)
        new = jnp.asarray(layer.apply(skip, take(like.reshape(n, h * w, channels), at)[:, None], False))[:, 0]
        if above is None:
            return new
        children, below = above
        return take(children, take(below.reshape(n, h * w), at)) + new

    return fill(cells, make_rows(cells, features, dtype), compute)


def _keep_size(variables: Variables, name: str, count: int, cells: CellList, x: Rows) -> Rows:
    """Apply the blocks of a row that keep the size."""
    scratch = jnp.zeros_like(x)
    for k in range(count):
        x, scratch = apply_block(pick(variables, f"{name}_{k}"), cells, x, scratch)
    return x


def _descend(
    variables: Variables, name: str, stride: int, cells: CellList, x: Rows, found: Array
) -> tuple[Float[Array, "n _ _"], Bool[Array, "n _"], Float[Array, "n H W _"], Float[Array, "n H W _"]]:
    """Compute the children of cells.

    Returns:
      The children's rows, whether each is composite, and maps of their size: the logits found so far, and theirs.
    """
    block = pick(variables, name)
    classifier = variables["params"][f"classify_{stride}"]
    features = block["params"]["bn2"]["scale"].shape[0]
    found = jnp.asarray(to_children(found))

    def step(k: Array, state: Any) -> Any:
        children, is_open, found, level = state
        new = up_block(block, cells, x, k)
        logits = new @ classifier["kernel"][0, 0].astype(new.dtype) + classifier["bias"].astype(new.dtype)
        logits = logits.astype(found.dtype)
        return (
            put(cells, children, new.reshape(*new.shape[:2], -1), k),
            put(cells, is_open, is_composite(logits), k),
            put_children(cells, found, _classes(logits), k),
            put_children(cells, level, logits, k),
        )

    level = jnp.zeros((*found.shape[:3], classifier["bias"].size), found.dtype)
    start = make_rows(cells, 4 * features, x.dtype), make_rows(cells, 4, bool), found, level
    children, is_open, found, level = each_chunk(cells, start, step)
    n = len(children)
    return children.reshape(n, -1, features), is_open.reshape(n, -1), found, level
