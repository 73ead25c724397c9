"""What the converter knows about an array of the program, and shapes with an unknown number of images."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

# A side of an array: a number, or an expression in the number of images.
Dim = Any
Shape = tuple[Dim, ...]
# Stands for the number of images where products of sides are compared: a prime, larger than any side.
_NUM_IMAGES = 1_000_003


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """An array of the program: a constant, or a tensor of the ONNX graph.

    jax's networks keep channels last, ONNX's operators want them second. So a tensor may store its axes in another order than the
    program names them; a transposition of the program then changes the order alone, and costs nothing. A tensor may also have size
    1 along an axis along which the program's array repeats.

    Attributes:
      shape: of the program's array.
      dtype: number format.
      sizes: like `shape`, with 1 where the array repeats along an axis.
      constant: the array with these sizes, for a constant.
      name: of the tensor, otherwise.
      order: for each axis of the tensor, the axis of the program's array.
    """

    shape: Shape
    dtype: np.dtype
    sizes: Shape
    constant: np.ndarray | None = None
    name: str = ""
    order: tuple[int, ...] = ()

    def __post_init__(self):
        """Make NumPy's integers among the sides plain ones."""
        for name in ("shape", "sizes"):
            sides = (int(side) if isinstance(side, np.integer) else side for side in getattr(self, name))
            object.__setattr__(self, name, tuple(sides))

    @property
    def rank(self) -> int:
        """Return the number of axes."""
        return len(self.shape)

    @property
    def is_constant(self) -> bool:
        """Return whether the array is known."""
        return self.constant is not None

    def stored_sizes(self, order: Sequence[SupportsIndex]) -> Shape:
        """Return the sizes of the tensor's axes if it is stored in this order."""
        return tuple(self.sizes[int(axis)] for axis in order)

    def full_constant(self) -> np.ndarray:
        """Return a constant in its whole shape."""
        assert self.constant is not None, "only a constant has a value"
        return np.broadcast_to(self.constant, self.shape)


def constant_of(array: Any, shape: Shape | None = None) -> Value:
    """Return a constant; with `shape`, it repeats along the axes in which its size is 1."""
    array = np.asarray(array)
    return Value(array.shape if shape is None else shape, array.dtype, array.shape, constant=array)


def is_one(dim: Dim) -> bool:
    """Return whether a side is known to be 1."""
    return isinstance(dim, int | np.integer) and int(dim) == 1


def is_static(shape: Shape) -> bool:
    """Return whether a shape does not depend on the number of images."""
    return all(isinstance(dim, int | np.integer) for dim in shape)


def factor_of(dim: Dim, num_images: Dim) -> int:
    """Return k of a side k · (number of images); raise ValueError for any other expression."""
    factor = dim // num_images
    if not isinstance(factor, int | np.integer) or factor * num_images != dim:
        raise ValueError(f"the side {dim} is not a multiple of the number of images")
    return int(factor)


def as_number(dim: Dim, num_images: Dim) -> int:
    """Return a number that is equal for equal sides."""
    return int(dim) if is_static((dim,)) else factor_of(dim, num_images) * _NUM_IMAGES


def reshape_groups(old: Shape, new: Shape, num_images: Dim) -> list[tuple[list[int], list[int]]]:
    """Split a reshape into the smallest groups of neighboring axes with the same number of elements, before and after."""
    before, after = ([as_number(dim, num_images) for dim in shape] for shape in (old, new))
    groups, i, j = [], 0, 0
    while i < len(before) and j < len(after):
        first, second = i, j
        i, j = i + 1, j + 1
        while (have := math.prod(before[first:i])) != (want := math.prod(after[second:j])):
            if have < want:
                i += 1
            else:
                j += 1
        groups.append((list(range(first, i)), list(range(second, j))))
    rest = list(range(i, len(before))), list(range(j, len(after)))  # axes of size 1
    if rest[0] or rest[1]:
        if not groups:
            groups.append(([], []))
        groups[-1] = (groups[-1][0] + rest[0], groups[-1][1] + rest[1])
    return groups
