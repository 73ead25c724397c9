"""Rules for convolutions and matrix products."""

import math
from typing import Any

import numpy as np

from pyrseg_jax.export.onnx.axes import reshape, transpose
from pyrseg_jax.export.onnx.graph import Graph, tensor
from pyrseg_jax.export.onnx.rule import Rule, Unsupported
from pyrseg_jax.export.onnx.values import Dim, Value, is_one, is_static

NARROW = 8  # columns of a matrix product


def _convolution(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    x, kernel = values
    graph, numbers = converter.graph, params["dimension_numbers"]
    if params["batch_group_count"] != 1:
        raise Unsupported("a convolution whose groups divide the images")
    x = graph.expanded(x)
    images = graph.ordered(x, numbers.lhs_spec)
    sides = [x.shape[axis] for axis in numbers.lhs_spec[2:]]
    taps = [kernel.shape[axis] for axis in numbers.rhs_spec[2:]]
    spread, gaps = tuple(params["lhs_dilation"]), tuple(params["rhs_dilation"])
    reach = [(count - 1) * gap + 1 for count, gap in zip(taps, gaps, strict=True)]
    pads, groups = [tuple(map(int, pad)) for pad in params["padding"]], params["feature_group_count"]
    strides = tuple(params["window_strides"])
    wide = [(side - 1) * by + 1 + sum(pad) for side, by, pad in zip(sides, spread, pads, strict=True)]
    out = [(have - width) // step + 1 for have, width, step in zip(wide, reach, strides, strict=True)]
    settings = {"dilations": list(gaps), "group": int(groups), "kernel_shape": list(map(int, taps))}
    if spread != (1,) * len(spread):
        pads = [(width - 1 - low, width - 1 - high) for width, (low, high) in zip(reach, pads, strict=True)]
        if strides != (1,) * len(strides) or min(map(min, pads)) < 0:
            raise Unsupported("a transposed convolution with strides, or padding beyond its kernel")
        name = graph.constant(_turned(kernel, numbers.rhs_spec, groups))
        op, settings["strides"] = "ConvTranspose", list(map(int, spread))
    else:
        name, op, settings["strides"] = graph.full(kernel, numbers.rhs_spec), "Conv", list(map(int, strides))
        if min(map(min, pads)) < 0:
            raise Unsupported("a convolution that leaves out the edge of a map")
    settings["pads"] = [low for low, _ in pads] + [high for _, high in pads]
    order, features = numbers.out_spec, kernel.shape[numbers.rhs_spec[0]]
    stored = [x.shape[numbers.lhs_spec[0]], features, *out]
    shape = tuple(stored[order.index(axis)] for axis in range(x.rank))
    return [tensor(graph.add(op, images, name, **settings), shape, x.dtype, order)]


def _turned(kernel: Value, spec: tuple[int, ...], groups: int) -> np.ndarray:
    """Return a kernel as a transposed convolution wants it: inputs first, and both sides reversed."""
    if kernel.constant is None:
        raise Unsupported("a transposed convolution whose kernel depends on the image")
    array = kernel.full_constant().transpose(spec)
    outputs, inputs, *sides = array.shape
    grouped = array.reshape(groups, outputs // groups, inputs, *sides).swapaxes(1, 2)
    return np.flip(grouped.reshape(groups * inputs, outputs // groups, *sides), tuple(range(2, 2 + len(sides))))


def _dot(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    a, b = values
    (of_a, of_b), (batch_a, batch_b) = params["dimension_numbers"]
    graph = converter.graph
    if not batch_a and len(of_a) == 1:
        for x, matrix, axis, inner, is_left in ((a, b, of_a[0], of_b[0], False), (b, a, of_b[0], of_a[0], True)):
            if matrix.constant is not None and x.constant is None:
                return [_multiply_by_constant(graph, x, axis, matrix, inner, is_left)]
    return [_multiply(graph, a, b, (of_a, of_b), (batch_a, batch_b))]


def _multiply_by_constant(graph: Graph, x: Value, axis: int, matrix: Value, inner: int, is_left: bool) -> Value:
    """Multiply along an axis by a constant matrix, without reordering the tensor if possible.

    The axes of the result are those of x but `axis`, and those of the matrix but `inner`; the latter come first if `is_left`.
    """
    x = graph.expanded(x, [axis])
    array = np.moveaxis(matrix.full_constant(), inner, 0)
    free, flat = array.shape[1:], array.reshape(array.shape[0], -1)
    last, place = x.rank - 1, x.order.index(axis)
    order = x.order
    if x.rank == 4 and place == 1 and not any(is_one(a) != is_one(b) for a, b in zip(x.sizes, x.shape)):
        name = graph.add("Conv", x.name, graph.constant(flat.T[:, :, None, None]), kernel_shape=[1, 1])
    elif place == last - 1 and not _is_narrow(x.sizes[x.order[-1]]):
        name = graph.add("MatMul", graph.constant(flat.T), x.name)
    else:
        order = (*(other for other in x.order if other != axis), axis)
        name = graph.add("MatMul", graph.ordered(x, order), graph.constant(flat))
    sides, sizes = ([side for i, side in enumerate(given) if i != axis] for given in (x.shape, x.sizes))
    order = [last if other == axis else other - (other > axis) for other in order]
    found = tensor(name, (*sides, flat.shape[1]), x.dtype, order, (*sizes, flat.shape[1]))
    if len(free) != 1:
        found = reshape(graph, found, (*sides, *free))
    if is_left:
        found = transpose(found, (*range(last, last + len(free)), *range(last)))
    return found


def _is_narrow(side: Dim) -> bool:
    """Return whether a product with so few columns is slower than a transposition and a product with many."""
    return is_static((side,)) and side < NARROW


def _multiply(graph: Graph, a: Value, b: Value, summed: tuple[Any, Any], batch: tuple[Any, Any]) -> Value:
    """Multiply two arrays: batch axes, free axes of the first, free axes of the second."""
    free = [
        [axis for axis in range(value.rank) if axis not in (*over, *along)]
        for value, over, along in zip((a, b), summed, batch, strict=True)
    ]
    a, b = (graph.expanded(value, [*over, *own]) for value, over, own in zip((a, b), summed, free, strict=True))
    sides = [[value.shape[axis] for axis in own] for value, own in zip((a, b), free, strict=True)]
    inner, many = math.prod(a.shape[axis] for axis in summed[0]), [_product(side) for side in sides]
    first = _as_matrices(graph, a, (*batch[0], *free[0], *summed[0]), len(batch[0]), (many[0], inner))
    second = _as_matrices(graph, b, (*batch[1], *summed[1], *free[1]), len(batch[1]), (inner, many[1]))
    name = graph.add("MatMul", first, second)
    shape = [a.shape[axis] for axis in batch[0]]
    sizes = [a.sizes[i] if not is_one(a.sizes[i]) else b.sizes[j] for i, j in zip(*batch, strict=True)]
    whole, wide = (*shape, *sides[0], *sides[1]), (*sizes, *sides[0], *sides[1])
    if len(sides[0]) != 1 or len(sides[1]) != 1:
        name = graph.reshape(name, wide)
    return tensor(name, whole, a.dtype, None, wide)


def _product(sides: list[Dim]) -> Dim:
    found: Dim = 1
    for side in sides:
        found = found * side
    return found


def _as_matrices(graph: Graph, value: Value, order: tuple[int, ...], num_batch: int, matrix: tuple[Dim, Dim]) -> str:
    name = graph.ordered(value, order)
    if value.rank == num_batch + 2 and is_static((value.shape[order[-1]],)):
        same = [value.shape[axis] for axis in order[-2:]]
        if all(is_one(x) == is_one(y) for x, y in zip(same, matrix, strict=True)) and same[0] == matrix[0]:
            return name
    return graph.reshape(name, (*(value.sizes[axis] for axis in order[:num_batch]), *matrix))


RULES: dict[str, Rule] = {"conv_general_dilated": _convolution, "dot_general": _dot}
