"""Rules for operations that move, cut, join or repeat axes."""

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

from pyrseg_jax.export.onnx.elementwise import cast, common_order
from pyrseg_jax.export.onnx.graph import Graph, tensor
from pyrseg_jax.export.onnx.rule import Rule, Unsupported
from pyrseg_jax.export.onnx.values import Shape, Value, constant_of, is_one, is_static, reshape_groups


def transpose(value: Value, permutation: Sequence[SupportsIndex]) -> Value:
    """Reorder the axes; no node is needed."""
    permutation = list(map(int, permutation))
    shape, sizes = (tuple(given[axis] for axis in permutation) for given in (value.shape, value.sizes))
    if value.constant is not None:
        return Value(shape, value.dtype, sizes, constant=value.constant.transpose(permutation))
    return tensor(value.name, shape, value.dtype, [permutation.index(axis) for axis in value.order], sizes)


def reshape(graph: Graph, value: Value, shape: Shape) -> Value:
    """Change the shape. Where it only splits and joins neighboring axes, their order in the tensor stays as it is."""
    shape = tuple(shape)
    if value.constant is not None and is_static(shape):
        return constant_of(value.full_constant().reshape(shape))
    repeats = any(is_one(size) and not is_one(dim) for size, dim in zip(value.sizes, value.shape, strict=True))
    if repeats:
        kept = [dim for dim in value.shape if not is_one(dim)], [dim for dim in shape if not is_one(dim)]
        if len(kept[0]) == len(kept[1]) and all(a == b for a, b in zip(*kept)):  # only axes of size 1 come and go
            return _reshape_ones(graph, value, shape)
        value = graph.expanded(value)
    if value.constant is not None:
        value = tensor(graph.ordered(value, range(value.rank)), value.shape, value.dtype)
    kept = [axis for axis in value.order if not is_one(value.shape[axis])]
    wide, ones = {}, []  # groups by their first axis that is not of size 1, and new axes of all other groups
    for before, after in reshape_groups(value.shape, shape, graph.num_images):
        before = [axis for axis in before if not is_one(value.shape[axis])]
        if before:
            wide[before[0]] = before, after
        else:
            ones += after
    order = []
    while kept:
        before, after = wide.get(kept[0], ([], []))
        if not before or kept[: len(before)] != before:  # a group's axes lie apart
            return tensor(graph.reshape(graph.ordered(value, range(value.rank)), shape), shape, value.dtype)
        order += after
        kept = kept[len(before) :]
    order += ones
    return tensor(graph.reshape(value.name, tuple(shape[axis] for axis in order)), shape, value.dtype, order)


def _reshape_ones(graph: Graph, value: Value, shape: Shape) -> Value:
    """Add and remove axes of size 1 of an array that repeats along others."""
    wide = [i for i, dim in enumerate(value.shape) if not is_one(dim)]
    target = [i for i, dim in enumerate(shape) if not is_one(dim)]
    sizes: list[Any] = [1] * len(shape)
    for old, new in zip(wide, target, strict=True):
        sizes[new] = value.sizes[old]
    if value.constant is not None:
        return Value(shape, value.dtype, tuple(sizes), constant=value.constant.reshape(sizes))
    moved = dict(zip(wide, target, strict=True))
    order = [moved[axis] for axis in value.order if axis in moved]
    order += [axis for axis in range(len(shape)) if axis not in order]
    name = graph.reshape(value.name, tuple(sizes[axis] for axis in order))
    return tensor(name, shape, value.dtype, order, tuple(sizes))


def _transpose(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    return [transpose(values[0], params["permutation"])]


def _reshape(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    if params.get("dimensions") is not None:
        raise Unsupported("a reshape that also reorders axes")
    return [reshape(converter.graph, values[0], params["new_sizes"])]


def _squeeze(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    (value,) = values
    gone = {axis % value.rank for axis in params["dimensions"]}
    return [reshape(converter.graph, value, tuple(d for i, d in enumerate(value.shape) if i not in gone))]


def _broadcast(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    """Repeat along axes. No element is copied: the tensor gets axes of size 1."""
    value, shape, targets = values[0], tuple(params["shape"]), params["broadcast_dimensions"]
    sizes: list[Any] = [1] * len(shape)
    for axis, target in enumerate(targets):
        sizes[target] = value.sizes[axis]
    if value.constant is not None:
        return [Value(shape, value.dtype, tuple(sizes), constant=value.constant.reshape(sizes))]
    order = [targets[axis] for axis in value.order]
    for axis in range(len(shape)):  # a new axis is stored behind the one that the program has before it
        if axis not in order:
            order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
    name = value.name
    if len(shape) != value.rank:
        name = converter.graph.reshape(name, tuple(sizes[axis] for axis in order))
    return [tensor(name, shape, value.dtype, order, tuple(sizes))]


def cut(graph: Graph, value: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """Take a range of an axis; a negative step goes from `start` down to above `stop`."""
    length = len(range(start, stop, step))
    shape = (*value.shape[:axis], length, *value.shape[axis + 1 :])
    if is_one(value.sizes[axis]) and not is_one(value.shape[axis]):
        return Value(shape, value.dtype, value.sizes, value.constant, value.name, value.order)
    sizes = (*value.sizes[:axis], length, *value.sizes[axis + 1 :])
    if value.constant is not None:
        index = [slice(None)] * value.rank
        index[axis] = slice(start, stop if stop >= 0 else None, step)
        return Value(shape, value.dtype, sizes, constant=value.constant[tuple(index)])
    if step == 1 and start == 0 and not isinstance(value.shape[axis], np.ndarray) and stop == value.shape[axis]:
        return value
    stop = stop if stop >= 0 else np.iinfo(np.int64).min + 1
    places = ([start], [stop], [value.order.index(axis)], [step])
    name = graph.add("Slice", value.name, *(graph.integers(place) for place in places))
    return tensor(name, shape, value.dtype, value.order, sizes)


def _last_images(graph: Graph, value: Value, axis: int, count: int) -> Value:
    """Take the last images, as `jnp.pad` does with the edge of each axis, padded or not."""
    value = graph.expanded(value, [axis])
    places = ([-count], [np.iinfo(np.int64).max], [value.order.index(axis)])
    name = graph.add("Slice", value.name, *(graph.integers(place) for place in places))
    shape, sizes = ((*given[:axis], count, *given[axis + 1 :]) for given in (value.shape, value.sizes))
    return tensor(name, shape, value.dtype, value.order, sizes)


def _slice(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    (value,) = values
    steps = params["strides"] or (1,) * value.rank
    for axis, (start, stop, step) in enumerate(zip(params["start_indices"], params["limit_indices"], steps)):
        if is_static((start, stop)):
            value = cut(converter.graph, value, axis, int(start), int(stop), int(step))
        elif is_static((stop - start,)) and stop == value.shape[axis]:
            value = _last_images(converter.graph, value, axis, int(stop - start))
        elif not (is_static((start,)) and start == 0 and stop == value.shape[axis]):
            raise Unsupported("a range of images")
    return [value]


def _dynamic_slice(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    value, *starts = values
    for axis, (start, size) in enumerate(zip(starts, params["slice_sizes"], strict=True)):
        if not is_static((size,)):
            continue  # all images
        if start.constant is None:
            raise Unsupported("a range whose start depends on the image")
        at = min(max(int(start.constant.item()), 0), value.shape[axis] - size)
        value = cut(converter.graph, value, axis, at, at + size)
    return [value]


def _reverse(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    (value,) = values
    for axis in params["dimensions"]:
        value = cut(converter.graph, value, axis, value.shape[axis] - 1, -1, -1)
    return [value]


def _split(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    (value,), axis, found, start = values, int(params["axis"]), [], 0
    for size in map(int, params["sizes"]):
        found.append(cut(converter.graph, value, axis, start, start + size))
        start += size
    return found


def concatenate(graph: Graph, values: list[Value], axis: int) -> Value:
    """Join along an axis."""
    order = common_order(values)
    names = [graph.full(value, order) for value in values]
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    name = names[0] if len(names) == 1 else graph.add("Concat", *names, axis=order.index(axis))
    return tensor(name, tuple(shape), values[0].dtype, order)


def _concatenate(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    values = [value for value in values if not (is_static(value.shape) and 0 in value.shape)] or values[:1]
    values = [value for value in values if not any(isinstance(d, int) and d == 0 for d in value.shape)] or values[:1]
    return [concatenate(converter.graph, values, int(params["dimension"]))]


def _stack(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    axis = int(params["axis"])
    wide = [reshape(converter.graph, value, (*value.shape[:axis], 1, *value.shape[axis:])) for value in values]
    return [concatenate(converter.graph, wide, axis)]


def _pad(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    value, filling = values
    graph, config = converter.graph, params["padding_config"]
    if any(interior for _, _, interior in config):
        raise Unsupported("padding between elements")
    if filling.constant is None:
        raise Unsupported("padding with a number that depends on the image")
    for axis, (low, high, _) in enumerate(config):
        if low < 0 or high < 0:
            value = cut(graph, value, axis, max(-low, 0), value.shape[axis] + min(high, 0))
    pads = [(max(low, 0), max(high, 0)) for low, high, _ in config]
    if not any(map(any, pads)):
        return [value]
    value = graph.expanded(value, [axis for axis, pad in enumerate(pads) if any(pad)])
    order = value.order if value.constant is None else tuple(range(value.rank))
    sides = [[pads[axis][end] for axis in order] for end in (0, 1)]
    number = graph.constant(filling.constant.astype(value.dtype).reshape(()))
    name = graph.add("Pad", graph.ordered(value, order), graph.integers(sides[0] + sides[1]), number)
    shape, sizes = (
        tuple(size + sum(pad) if any(pad) else size for size, pad in zip(given, pads, strict=True))
        for given in (value.shape, value.sizes)
    )
    return [tensor(name, shape, value.dtype, order, sizes)]


def _iota(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    shape, axis, dtype = tuple(params["shape"]), params["dimension"], params["dtype"]
    sizes: list[Any] = [1] * len(shape)
    sizes[axis] = shape[axis]
    if is_static((shape[axis],)):
        return [
            Value(shape, np.dtype(dtype), tuple(sizes), constant=np.arange(shape[axis], dtype=dtype).reshape(sizes))
        ]
    graph = converter.graph
    end = graph.add("Reshape", graph.dims((shape[axis],)), graph.integers([]))
    found = graph.add("Range", graph.constant(np.int64(0)), end, graph.constant(np.int64(1)))
    numbers = cast(graph, tensor(found, (shape[axis],), np.int64), dtype)
    return _broadcast(converter, {"shape": shape, "broadcast_dimensions": (axis,)}, [numbers])


RULES: dict[str, Rule] = {
    "transpose": _transpose,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "rev": _reverse,
    "split": _split,
    "concatenate": _concatenate,
    "stack": _stack,
    "pad": _pad,
    "iota": _iota,
}
