"""Rules for reading and writing at indices."""

from typing import Any

import numpy as np

from pyrseg_jax.export.onnx.axes import cut, reshape
from pyrseg_jax.export.onnx.elementwise import RULES as ELEMENTWISE
from pyrseg_jax.export.onnx.elementwise import cast, combine, select
from pyrseg_jax.export.onnx.graph import Graph, tensor
from pyrseg_jax.export.onnx.rule import Rule, Unsupported
from pyrseg_jax.export.onnx.values import Value, is_static


def _gather(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    x, indices = values
    graph, numbers, sizes = converter.graph, params["dimension_numbers"], params["slice_sizes"]
    indexed: tuple[int, ...] = tuple(numbers.start_index_map)
    batch = tuple(numbers.operand_batching_dims)
    if indices.constant is not None and indices.rank == 1:
        return [_part(graph, x, indices.constant, indexed, sizes, set(numbers.collapsed_slice_dims))]
    x, indices, indexed = _without_parts(graph, x, indices, indexed, sizes)
    if set(numbers.collapsed_slice_dims) != set(indexed) or any(sizes[axis] != 1 for axis in indexed):
        raise Unsupported("reading a range whose start depends on the image")
    rest = [axis for axis in range(x.rank) if axis not in (*indexed, *batch)]
    if any(sizes[axis] != x.shape[axis] for axis in rest):
        raise Unsupported("reading a part of an axis at an index")
    indices, is_inside = _bounded(graph, x, indices, indexed, str(params["mode"]))
    out_rank = indices.rank - 1 + len(rest)
    offsets = tuple(numbers.offset_dims)
    others = [
        axis for axis in range(out_rank) if axis not in offsets
    ]  # result axes of the indices' axes, in their order
    if len(indexed) == 1 and not batch:
        found = _along_one_axis(graph, x, indices, indexed[0], rest, offsets, others)
    else:
        along = tuple(numbers.start_indices_batching_dims)
        found = _at_points(graph, x, indices, (batch, along), indexed, rest, (offsets, others))
    if is_inside is not None:
        sides = tuple(dim if axis in others else 1 for axis, dim in enumerate(found.shape))
        name = graph.reshape(graph.full(is_inside, range(is_inside.rank)), sides)
        mask = tensor(name, found.shape, bool, None, sides)
        filling = np.nan if params["fill_value"] is None and x.dtype.kind == "f" else params["fill_value"] or 0
        found = select(graph, mask, found, Value((), x.dtype, (), constant=np.array(filling, x.dtype)))
    return [found]


def _part(graph: Graph, x: Value, starts: np.ndarray, indexed: tuple[int, ...], sizes: Any, gone: set[int]) -> Value:
    """Read one part whose place is known, which jax writes like this where the number of images is open."""
    for axis, start in zip(indexed, starts.tolist(), strict=True):
        start = min(max(start, 0), x.shape[axis] - sizes[axis])
        x = cut(graph, x, axis, start, start + int(sizes[axis]))
    if any(x.shape[axis] != size for axis, size in enumerate(sizes)):
        raise Unsupported("reading a part of the images")
    return reshape(graph, x, tuple(dim for axis, dim in enumerate(x.shape) if axis not in gone))


def _without_parts(
    graph: Graph, x: Value, indices: Value, indexed: tuple[int, ...], sizes: Any
) -> tuple[Value, Value, tuple[int, ...]]:
    """Take the parts of axes that start at the same known place for all indices; return what is left to read."""
    if indices.constant is None:
        return x, indices, indexed
    array, kept = indices.full_constant() if is_static(indices.shape) else indices.constant, []
    for column, axis in enumerate(indexed):
        starts = array[..., column]
        if sizes[axis] != 1 and is_static((sizes[axis],)) and (starts == starts.flat[0]).all():
            start = min(max(int(starts.flat[0]), 0), x.shape[axis] - sizes[axis])
            x = cut(graph, x, axis, start, start + int(sizes[axis]))
        else:
            kept.append(column)
    left = Value(
        (*indices.shape[:-1], len(kept)), indices.dtype, (*array.shape[:-1], len(kept)), constant=array[..., kept]
    )
    return x, left, tuple(indexed[column] for column in kept)


def _bounded(graph: Graph, x: Value, indices: Value, indexed: tuple[int, ...], mode: str) -> tuple[Value, Value | None]:
    """Return indices within bounds, and where they were, if the rest of the result must be filled."""
    last = np.array([x.shape[axis] - 1 for axis in indexed], np.int32)
    if indices.constant is not None:
        array = indices.constant
        if is_static(indices.shape) and ((array >= 0) & (array <= last)).all():
            return indices, None
    if "PROMISE" in mode:
        return indices, None
    sizes = (*[1] * (indices.rank - 1), len(last))
    limit = Value(indices.shape, last.dtype, sizes, constant=last.reshape(sizes))
    indices = cast(graph, indices, np.int32)
    zero = Value((), last.dtype, (), constant=np.array(0, np.int32))
    bounded = combine(graph, "Min", [combine(graph, "Max", [indices, zero], np.int32), limit], np.int32)
    if "CLIP" in mode:
        return bounded, None
    (is_same,) = ELEMENTWISE["eq"](_Holder(graph), {}, [bounded, indices])
    wide = cast(graph, graph.expanded(is_same), np.int32)
    all_inside = graph.add(
        "ReduceMin", graph.ordered(wide, range(wide.rank)), graph.integers([wide.rank - 1]), keepdims=0
    )
    return bounded, cast(graph, tensor(all_inside, indices.shape[:-1], np.int32), bool)


class _Holder:
    """What a rule reads of the converter."""

    def __init__(self, graph: Graph):
        self.graph = graph


def _along_one_axis(
    graph: Graph, x: Value, indices: Value, axis: int, rest: list[int], offsets: tuple[int, ...], others: list[int]
) -> Value:
    """Read along one axis at the same indices everywhere; the tensor keeps its order."""
    x = graph.expanded(x, [axis])
    order = x.order if x.constant is None else tuple(range(x.rank))
    name = graph.full(indices, range(indices.rank))
    name = graph.reshape(name, indices.shape[:-1])
    name = graph.add("Gather", graph.ordered(x, order), name, axis=order.index(axis))
    to = dict(zip(rest, offsets, strict=True))
    new_order: list[int] = []
    for stored in order:
        new_order += others if stored == axis else [to[stored]]
    shape, sizes = {}, {}
    for source, target in to.items():
        shape[target], sizes[target] = x.shape[source], x.sizes[source]
    for source, target in enumerate(others):
        shape[target] = sizes[target] = indices.shape[source]
    rank = len(shape)
    return tensor(name, tuple(shape[i] for i in range(rank)), x.dtype, new_order, tuple(sizes[i] for i in range(rank)))


def _at_points(
    graph: Graph,
    x: Value,
    indices: Value,
    batch: tuple[tuple[int, ...], tuple[int, ...]],
    indexed: tuple[int, ...],
    rest: list[int],
    places: tuple[tuple[int, ...], list[int]],
) -> Value:
    """Read at points of several axes, or of another place in each image."""
    of_x, of_indices = batch
    free = [axis for axis in range(indices.rank - 1) if axis not in of_indices]
    source = graph.full(x, (*of_x, *indexed, *rest))
    at = graph.full(cast(graph, indices, np.int64), (*of_indices, *free, indices.rank - 1))
    name = graph.add("GatherND", source, at, batch_dims=len(of_x))
    offsets, others = places
    order = [others[axis] for axis in (*of_indices, *free)] + list(offsets)
    shape = [indices.shape[axis] for axis in (*of_indices, *free)] + [x.shape[axis] for axis in rest]
    return tensor(name, tuple(shape[order.index(axis)] for axis in range(len(order))), x.dtype, order)


def _scatter(reduction: str) -> Rule:
    def rule(converter: Any, params: dict, values: list[Value]) -> list[Value]:
        """Write rows at indices along one axis. The networks write at indices that a sort of all positions gave: all inside."""
        x, indices, updates = values
        graph, numbers = converter.graph, params["dimension_numbers"]
        (*_, count), axes = indices.shape, tuple(numbers.scatter_dims_to_operand_dims)
        batch, along = tuple(numbers.operand_batching_dims), tuple(numbers.scatter_indices_batching_dims)
        free = [axis for axis in range(indices.rank - 1) if axis not in along]
        if count != 1 or tuple(numbers.inserted_window_dims) != axes or len(free) != 1:
            raise Unsupported("writing at points of several axes")
        windows = tuple(numbers.update_window_dims)
        kept = [axis for axis in range(x.rank) if axis not in (*axes, *batch)]
        of_indices = [axis for axis in range(updates.rank) if axis not in windows]
        places = dict(zip(kept, windows, strict=True)) | {axes[0]: of_indices[free[0]]}
        places |= {to: of_indices[axis] for to, axis in zip(batch, along, strict=True)}
        order = [places[axis] for axis in range(x.rank)]
        if any(updates.shape[places[axis]] != x.shape[axis] for axis in kept):
            raise Unsupported("writing parts of rows")
        new = graph.full(updates, order)
        stored = {axes[0]: free[0]} | dict(zip(batch, along, strict=True))
        sides = tuple(indices.shape[stored[axis]] if axis in stored else 1 for axis in range(x.rank))
        moved = [*(stored[axis] for axis in sorted(stored)), indices.rank - 1]
        rows = graph.reshape(graph.full(cast(graph, indices, np.int64), moved), sides)
        rows = graph.add("Expand", rows, graph.dims(tuple(updates.shape[axis] for axis in order)))
        target = graph.full(x, range(x.rank))
        name = graph.add("ScatterElements", target, rows, new, axis=axes[0], reduction=reduction)
        return [tensor(name, x.shape, x.dtype)]

    return rule


RULES: dict[str, Rule] = {"gather": _gather, "scatter": _scatter("none"), "scatter-add": _scatter("add")}
