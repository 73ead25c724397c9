"""Rules for sums, extremes and pools over axes or windows."""

import math
from typing import Any

import numpy as np

from pyrseg_jax.export.onnx.elementwise import cast, combine, scalar
from pyrseg_jax.export.onnx.graph import tensor
from pyrseg_jax.export.onnx.rule import Rule, Unsupported
from pyrseg_jax.export.onnx.values import Value


def _reduction(op: str) -> Rule:
    def rule(converter: Any, params: dict, values: list[Value]) -> list[Value]:
        (value,), graph, axes = values, converter.graph, params["axes"]
        # The largest of equal numbers is that number, but their sum is not.
        value = graph.expanded(value, axes if op in ("ReduceSum", "ReduceProd") else ())
        if not axes:
            return [value]
        wide = cast(graph, value, np.int32) if value.dtype.kind in "bu" or value.dtype.itemsize < 4 else value
        order = wide.order if wide.constant is None else tuple(range(wide.rank))
        places = graph.integers(sorted(order.index(axis) for axis in axes))
        name = graph.add(op, graph.ordered(wide, order), places, keepdims=0)
        return [cast(graph, _without(wide, axes, name, order), value.dtype)]

    return rule


def _without(value: Value, axes: Any, name: str, order: tuple[int, ...]) -> Value:
    """Return the value of a tensor in which some axes of another value are gone."""
    left = [axis for axis in range(value.rank) if axis not in axes]
    shape, sizes = (tuple(given[axis] for axis in left) for given in (value.shape, value.sizes))
    return tensor(name, shape, value.dtype, [left.index(axis) for axis in order if axis in left], sizes)


def _argument(op: str) -> Rule:
    def rule(converter: Any, params: dict, values: list[Value]) -> list[Value]:
        (value,), graph, (axis,) = values, converter.graph, params["axes"]
        value = graph.expanded(value, [axis])
        name = graph.add(op, value.name, axis=value.order.index(axis), keepdims=0)
        found = _without(value, [axis], name, value.order)
        indices = Value(found.shape, np.dtype(np.int64), found.sizes, name=found.name, order=found.order)
        return [cast(graph, indices, params["index_dtype"])]

    return rule


def _window(is_mean: bool) -> Rule:
    def rule(converter: Any, params: dict, values: list[Value]) -> list[Value]:
        (value,), graph = values, converter.graph
        window, strides, pads = (
            tuple(params[f"{name}"]) for name in ("window_dimensions", "window_strides", "padding")
        )
        gaps = tuple(params["window_dilation"])
        moving = [axis for axis in range(value.rank) if window[axis] != 1]
        still = [axis for axis in range(value.rank) if axis not in moving]
        if set(params["base_dilation"]) != {1} or len(still) != 2 or (is_mean and set(gaps) != {1}):
            raise Unsupported("a window over other axes than height and width")
        if any(strides[axis] != 1 or any(pads[axis]) for axis in still):
            raise Unsupported("a window that moves along images or channels")
        order, value = (*still, *moving), graph.expanded(value)
        settings: dict[str, Any] = {
            "kernel_shape": [int(window[axis]) for axis in moving],
            "strides": [int(strides[axis]) for axis in moving],
            "pads": [int(pads[axis][end]) for end in (0, 1) for axis in moving],
        }
        settings |= {"count_include_pad": 1} if is_mean else {"dilations": [int(gaps[axis]) for axis in moving]}
        name = graph.add("AveragePool" if is_mean else "MaxPool", graph.ordered(value, order), **settings)
        shape = list(value.shape)
        for axis in moving:
            reach = (window[axis] - 1) * gaps[axis] + 1
            shape[axis] = (value.shape[axis] + sum(pads[axis]) - reach) // strides[axis] + 1
        found = tensor(name, tuple(shape), value.dtype, order)
        if is_mean:
            found = combine(graph, "Mul", [found, scalar(math.prod(window), found)], found.dtype)
        return [found]

    return rule


def _top(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    (value,), graph, k = values, converter.graph, params["k"]
    axis = params.get("axis", -1) % value.rank
    value = graph.expanded(value, [axis])
    place = value.order.index(axis)
    highest, at = graph.add_many("TopK", [value.name, graph.integers([k])], 2, axis=place)
    shape, sizes = ((*given[:axis], k, *given[axis + 1 :]) for given in (value.shape, value.sizes))
    indices = tensor(at, shape, np.int64, value.order, sizes)
    return [tensor(highest, shape, value.dtype, value.order, sizes), cast(graph, indices, np.int32)]


def _cumulative(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    (value,), graph, axis = values, converter.graph, params["axis"]
    value = graph.expanded(value, [axis])
    place = graph.constant(np.int64(value.order.index(axis)))
    name = graph.add("CumSum", value.name, place, reverse=int(params["reverse"]))
    return [Value(value.shape, value.dtype, value.sizes, name=name, order=value.order)]


RULES: dict[str, Rule] = {
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_prod": _reduction("ReduceProd"),
    "reduce_or": _reduction("ReduceMax"),
    "reduce_and": _reduction("ReduceMin"),
    "argmax": _argument("ArgMax"),
    "argmin": _argument("ArgMin"),
    "reduce_window_max": _window(is_mean=False),
    "reduce_window_sum": _window(is_mean=True),
    "top_k": _top,
    "cumsum": _cumulative,
}
