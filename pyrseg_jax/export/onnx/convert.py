"""Convert a program of jax to an ONNX graph, operation by operation."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from pyrseg_jax.export.onnx import axes, elementwise, indexing, products, reductions
from pyrseg_jax.export.onnx.control import RULES as CONTROL
from pyrseg_jax.export.onnx.graph import Graph
from pyrseg_jax.export.onnx.rule import Rule, Unsupported
from pyrseg_jax.export.onnx.values import Shape, Value, constant_of, is_static

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **axes.RULES,
    **products.RULES,
    **reductions.RULES,
    **indexing.RULES,
    **CONTROL,
}
# Rules that treat constants themselves, without making them larger than they need to be.
_KEEPS_CONSTANTS = {"broadcast_in_dim", "transpose", "reshape", "squeeze", "convert_element_type", "iota", *CONTROL}


class Converter:
    """Converts jaxprs into nodes of a graph.

    Args:
      graph: the graph.

    Everything that depends on constants alone is computed at once.
    """

    def __init__(self, graph: Graph):
        self.graph = graph

    def run(
        self, jaxpr: Any, constants: Sequence[Any], values: Sequence[Value], wanted: Sequence[bool] | None = None
    ) -> list:
        """Convert a jaxpr.

        Args:
          jaxpr: the operations.
          constants: values of its constants.
          values: its inputs.
          wanted: for each output, whether it is used; by default, all are.

        Returns:
          The outputs; None for those that are not used.

        Raises:
          Unsupported: naming the operation that has no rule.
        """
        found: dict[Any, Any] = {}
        for variable, constant in zip(jaxpr.constvars, constants, strict=True):
            found[variable] = constant if isinstance(constant, Value) else constant_of(constant)
        found |= zip(jaxpr.invars, values, strict=True)
        wanted = [True] * len(jaxpr.outvars) if wanted is None else wanted
        for equation, used in _live(jaxpr, wanted):
            inputs = [_read(found, variable) for variable in equation.invars]
            for variable, value, is_used in zip(
                equation.outvars, self._apply(equation, inputs, used), used, strict=True
            ):
                if is_used:
                    found[variable] = value
        return [_read(found, variable) if keep else None for variable, keep in zip(jaxpr.outvars, wanted, strict=True)]

    def _apply(self, equation: Any, inputs: list[Value], used: list[bool]) -> list:
        name, params = equation.primitive.name, equation.params
        shapes = [tuple(variable.aval.shape) for variable in equation.outvars]
        if name not in _KEEPS_CONSTANTS and inputs and all(value.is_constant for value in inputs):
            found = _compute(equation, inputs, shapes)
            if found is not None:
                return found
        rule = RULES.get(name)
        if rule is None:
            raise Unsupported(f"the operation {name}")
        try:
            return rule(self, {**params, "used": used} if name in CONTROL else params, inputs)
        except Unsupported as error:
            raise error if ":" in str(error) else Unsupported(f"{name}: {error}") from error


def _read(found: dict, variable: Any) -> Value:
    if isinstance(variable, core.Literal):
        return constant_of(np.asarray(variable.val, getattr(variable.aval, "dtype", None)))
    return found[variable]


def _live(jaxpr: Any, wanted: Sequence[bool]) -> list[tuple[Any, list[bool]]]:
    """Return the equations that the wanted outputs depend on, and which of their outputs are used."""
    needed = {v for v, keep in zip(jaxpr.outvars, wanted, strict=True) if keep and not isinstance(v, core.Literal)}
    found = []
    for equation in reversed(jaxpr.eqns):
        used = [variable in needed for variable in equation.outvars]
        if any(used):
            found.append((equation, used))
            needed |= {variable for variable in equation.invars if not isinstance(variable, core.Literal)}
    return found[::-1]


def _compute(equation: Any, inputs: list[Value], shapes: list[Shape]) -> list[Value] | None:
    """Compute an operation on constants; return None if the shape of a result depends on the number of images."""
    function: Callable[..., np.ndarray] | None = elementwise.NUMPY.get(equation.primitive.name)
    if function is not None:
        with np.errstate(all="ignore"):
            array = function(*(value.constant for value in inputs)).astype(equation.outvars[0].aval.dtype)
        rank = len(shapes[0])
        return [constant_of(array.reshape((1,) * (rank - array.ndim) + array.shape), shapes[0])]
    if not all(map(is_static, [*shapes, *(value.shape for value in inputs)])):
        return None
    arrays = [value.full_constant() for value in inputs]
    found = equation.primitive.bind(*map(jax.numpy.asarray, arrays), **equation.params)
    return [constant_of(np.asarray(array)) for array in (found if equation.primitive.multiple_results else [found])]
