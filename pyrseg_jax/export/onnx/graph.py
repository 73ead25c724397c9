"""The ONNX graph while it is being built: nodes, constants, and tensors in the order of axes that a node wants."""

import hashlib
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

from pyrseg_jax.export.onnx.values import Dim, Shape, Value, factor_of, is_one, is_static


class Node:
    """A node of the graph.

    Attributes:
      op: the operator.
      inputs, outputs: names of tensors; "" for an input that is left out.
      attributes: by name.
    """

    def __init__(self, op: str, inputs: list[str], outputs: list[str], attributes: dict[str, Any]):
        self.op, self.inputs, self.outputs, self.attributes = op, inputs, outputs, attributes

    @property
    def output(self) -> str:
        """Return the name of the only output."""
        return self.outputs[0]


class Graph:
    """A graph under construction.

    Args:
      num_images: the expression for the number of images in shapes of the program; a number where it is fixed.
      images: name of the input whose first axis it is.

    Attributes:
      nodes: in the order in which they run.
      constants: arrays by name.
    """

    def __init__(self, num_images: Dim, images: str):
        self.num_images, self._images = num_images, images
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self._names: dict[tuple, str] = {}
        self._ordered: dict[tuple, str] = {}
        self._reshaped: dict[str, str] = {}  # what a reshaped tensor was before
        self._count = 0

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; return the name of the output. An equal node that is there already serves both."""
        key = (op, inputs, repr(sorted(attributes.items())))
        if key not in self._ordered:
            self._ordered[key] = self.add_many(op, inputs, 1, **attributes)[0]
        return self._ordered[key]

    def add_many(self, op: str, inputs: Sequence[str], num_outputs: int, **attributes: Any) -> list[str]:
        """Add a node; return the names of its outputs."""
        self._count += 1
        base = f"{op.lower()}_{self._count}"
        outputs = [base] if num_outputs == 1 else [f"{base}_{i}" for i in range(num_outputs)]
        self.nodes.append(Node(op, list(inputs), outputs, attributes))
        return outputs

    def constant(self, array: np.ndarray) -> str:
        """Return the name of a constant; equal ones are stored once."""
        array = np.ascontiguousarray(array).reshape(array.shape)  # which alone would make a scalar a vector
        key = (str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._names:
            self._names[key] = f"constant_{len(self._names)}"
            self.constants[self._names[key]] = array
        return self._names[key]

    def integers(self, numbers: Sequence[SupportsIndex]) -> str:
        """Return the name of a constant vector of int64."""
        return self.constant(np.array(numbers, np.int64))

    def dims(self, shape: Shape) -> str:
        """Return the name of a vector of int64 with the sides of a shape, computed from the number of images if needed."""
        if is_static(shape):
            return self.integers(shape)
        count = self.add("Slice", self.add("Shape", self._images), self.integers([0]), self.integers([1]))
        parts = []
        for dim in shape:
            if is_static((dim,)):
                parts.append(self.integers([dim]))
            else:
                factor = factor_of(dim, self.num_images)
                parts.append(count if factor == 1 else self.add("Mul", count, self.integers([factor])))
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=0)

    def reshape(self, name: str, shape: Shape) -> str:
        """Reshape a tensor; of two reshapes in a row, the second does the work of both."""
        name = self._reshaped.get(name, name)
        found = self._reshape(name, shape)
        self._reshaped[found] = name
        return found

    def _reshape(self, name: str, shape: Shape) -> str:
        unknown = [not is_static((dim,)) for dim in shape]
        if sum(unknown) > 1:
            return self.add("Reshape", name, self.dims(shape))
        return self.add("Reshape", name, self.integers([-1 if hidden else dim for hidden, dim in zip(unknown, shape)]))

    def ordered(self, value: Value, order: Sequence[SupportsIndex]) -> str:
        """Return the name of a tensor with the value's axes in this order; it may repeat, see `Value.sizes`."""
        order = tuple(map(int, order))
        if value.constant is not None:
            return self.constant(value.constant.transpose(order))
        if order == value.order:
            return value.name
        kept = [[axis for axis in axes if not is_one(value.sizes[axis])] for axes in (value.order, order)]
        if kept[0] == kept[1]:  # only axes of size 1 move
            return self.reshape(value.name, value.stored_sizes(order))
        return self.add("Transpose", value.name, perm=[value.order.index(axis) for axis in order])

    def full(self, value: Value, order: Sequence[SupportsIndex]) -> str:
        """Return the name of a tensor with the value's axes in this order, in its whole shape."""
        name = self.ordered(value, order)
        if all(is_one(a) == is_one(b) for a, b in zip(value.sizes, value.shape, strict=True)):
            return name
        if value.constant is not None and is_static(value.shape):
            return self.constant(value.full_constant().transpose(order))
        return self.add("Expand", name, self.dims(tuple(value.shape[axis] for axis in order)))

    def expanded(self, value: Value, axes: Sequence[SupportsIndex] | None = None) -> Value:
        """Return a value that does not repeat along these axes, or along any."""
        axes = range(value.rank) if axes is None else axes
        sizes = tuple(value.shape[i] if i in axes else size for i, size in enumerate(value.sizes))
        if all(is_one(a) == is_one(b) for a, b in zip(value.sizes, sizes, strict=True)):
            return value
        order = value.order if value.constant is None else tuple(range(value.rank))
        part = Value(sizes, value.dtype, value.sizes, value.constant, value.name, value.order)
        return Value(value.shape, value.dtype, sizes, name=self.full(part, order), order=order)


def tensor(
    name: str, shape: Shape, dtype: Any, order: Sequence[SupportsIndex] | None = None, sizes: Shape | None = None
) -> Value:
    """Return the value of a tensor of the graph; by default its axes are in the program's order and do not repeat."""
    places = tuple(map(int, range(len(shape)) if order is None else order))
    return Value(tuple(shape), np.dtype(dtype), tuple(shape if sizes is None else sizes), name=name, order=places)
