"""Rules for operations that treat every element alone, and their NumPy twins for constants."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pyrseg_jax.export.onnx.graph import Graph, tensor
from pyrseg_jax.export.onnx.rule import Rule, Unsupported
from pyrseg_jax.export.onnx.values import Shape, Value, is_one

# Number formats that most operators of ONNX lack, and which are computed as int32.
_SMALL = {np.dtype(name) for name in ("uint8", "int8", "uint16", "int16")}


def common_order(values: list[Value]) -> tuple[int, ...]:
    """Return the order of axes in which the most of these values lie; an order of convolutions wins over the program's own."""
    rank = max(value.rank for value in values)
    own = tuple(range(rank))
    found = [value for value in values if not value.is_constant and value.rank == rank]
    if not found:
        return own
    return max(found, key=lambda v: (sum(not is_one(size) for size in v.sizes), v.order != own)).order


def combine(graph: Graph, op: str, values: list[Value], dtype: Any, **attributes: Any) -> Value:
    """Add a node that computes each element from those of the values at the same place; scalars serve all places."""
    shape, sizes = _common_shape(values)
    order = common_order(values)
    names = [graph.ordered(value, order if value.rank else ()) for value in values]
    return tensor(graph.add(op, *names, **attributes), shape, dtype, order, sizes)


def _common_shape(values: list[Value]) -> tuple[Shape, Shape]:
    """Return the shape and the sizes of a result: along each axis those of the inputs that are not 1, if there are any."""
    rank = max(value.rank for value in values)
    whole = [value for value in values if value.rank == rank]
    shape, sizes = (
        tuple(next((side for side in column if not is_one(side)), 1) for column in zip(*given, strict=True))
        for given in ([value.shape for value in whole], [value.sizes for value in whole])
    )
    return shape, sizes


def cast(graph: Graph, value: Value, dtype: Any) -> Value:
    """Convert the number format."""
    dtype = np.dtype(dtype)
    if value.dtype == dtype:
        return value
    if value.constant is not None:
        return Value(value.shape, dtype, value.sizes, constant=value.constant.astype(dtype))
    return combine(graph, "Cast", [value], dtype, to=dtype.name)


def scalar(number: float, like: Value) -> Value:
    """Return a constant number of the format of another value."""
    array = np.array(number, like.dtype)
    return Value((), array.dtype, (), constant=array)


def _simple(op: str, is_comparison: bool = False, **attributes: Any) -> Rule:
    """Make the rule of an operation that ONNX has, too."""

    def rule(converter: Any, params: dict, values: list[Value]) -> list[Value]:
        graph, dtype = converter.graph, values[-1].dtype
        wide = [cast(graph, value, np.int32) if value.dtype in _SMALL else value for value in values]
        found = combine(graph, op, wide, bool if is_comparison else wide[-1].dtype, **attributes)
        return [found if is_comparison else cast(graph, found, dtype)]

    return rule


def _extreme(op: str, neutral: float) -> Rule:
    plain = _simple(op)

    def rule(converter: Any, params: dict, values: list[Value]) -> list[Value]:
        for number, other in (values, values[::-1]):
            if number.constant is not None and number.constant.size == 1 and other.constant is None and other.rank:
                if number.constant.item() == neutral:
                    return [other]
                if op == "Max" and number.constant.item() == 0 and other.dtype == np.float32:
                    return [combine(converter.graph, "Relu", [other], other.dtype)]
        return plain(converter, params, values)

    return rule


def _chain(*steps: tuple) -> Rule:
    """Make a rule of several nodes; each step is (operator, inputs), where an input is a number, "x" or "last"."""

    def rule(converter: Any, params: dict, values: list[Value]) -> list[Value]:
        (x,) = values
        last = x
        for op, *inputs in steps:
            named = {"x": x, "last": last}
            found = [named[given] if isinstance(given, str) else scalar(given, x) for given in inputs]
            last = combine(converter.graph, op, found, x.dtype)
        return [last]

    return rule


def _not_equal(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    (equal,) = RULES["eq"](converter, params, values)
    return [combine(converter.graph, "Not", [equal], bool)]


def _integer_power(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    (x,), power = values, params["y"]
    if power == 2:
        return [combine(converter.graph, "Mul", [x, x], x.dtype)]
    return [combine(converter.graph, "Pow", [x, scalar(power, x)], x.dtype)]


def _round(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    if params["rounding_method"] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        raise Unsupported("rounding halves away from zero")
    return [combine(converter.graph, "Round", values, values[0].dtype)]


def select(graph: Graph, condition: Value, if_true: Value, if_false: Value) -> Value:
    """Choose between two values, element by element."""
    dtype = if_true.dtype
    if dtype.kind == "b":
        chosen = combine(graph, "And", [condition, if_true], bool)
        other = combine(graph, "And", [combine(graph, "Not", [condition], bool), if_false], bool)
        return combine(graph, "Or", [chosen, other], bool)
    if dtype in _SMALL:
        if_true, if_false = cast(graph, if_true, np.int32), cast(graph, if_false, np.int32)
    return cast(graph, combine(graph, "Where", [condition, if_true, if_false], if_true.dtype), dtype)


def _select_n(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    which, *cases = values
    if len(cases) != 2 or which.dtype != bool:
        raise Unsupported("a choice between more than two arrays")
    if which.constant is not None and which.constant.size == 1:
        return [cases[int(which.constant.item())]]
    return [select(converter.graph, which, cases[1], cases[0])]


def _clamp(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    low, x, high = values
    (above,) = RULES["max"](converter, {}, [low, x])
    return RULES["min"](converter, {}, [above, high])


def _convert(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    return [cast(converter.graph, values[0], params["new_dtype"])]


def _same(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    return list(values)


RULES: dict[str, Rule] = {
    **{
        name: _simple(op)
        for name, op in {
            "add": "Add",
            "sub": "Sub",
            "mul": "Mul",
            "div": "Div",
            "pow": "Pow",
            "neg": "Neg",
            "exp": "Exp",
            "log": "Log",
            "tanh": "Tanh",
            "sqrt": "Sqrt",
            "abs": "Abs",
            "floor": "Floor",
            "ceil": "Ceil",
            "sign": "Sign",
            "logistic": "Sigmoid",
            "erf": "Erf",
            "sin": "Sin",
            "cos": "Cos",
            "and": "And",
            "or": "Or",
            "xor": "Xor",
            "not": "Not",
        }.items()
    },
    **{
        name: _simple(op, is_comparison=True)
        for name, op in {
            "eq": "Equal",
            "lt": "Less",
            "le": "LessOrEqual",
            "gt": "Greater",
            "ge": "GreaterOrEqual",
        }.items()
    },
    "ne": _not_equal,
    "rem": _simple("Mod", fmod=1),
    "max": _extreme("Max", -math.inf),
    "min": _extreme("Min", math.inf),
    "rsqrt": _chain(("Sqrt", "x"), ("Reciprocal", "last")),
    "square": _chain(("Mul", "x", "x")),
    "erfc": _chain(("Erf", "x"), ("Sub", 1.0, "last")),
    "log1p": _chain(("Add", "x", 1.0), ("Log", "last")),
    "expm1": _chain(("Exp", "x"), ("Sub", "last", 1.0)),
    "integer_pow": _integer_power,
    "round": _round,
    "select_n": _select_n,
    "clamp": _clamp,
    "convert_element_type": _convert,
    **dict.fromkeys(("copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision"), _same),
}


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if np.issubdtype(x.dtype, np.integer):
        return np.asarray(np.trunc(np.true_divide(x, y)), x.dtype)
    return np.asarray(np.divide(x, y))


# NumPy's functions for constants: thousands of small programs would have to be compiled for them otherwise.
NUMPY: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _divide,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "floor": np.floor,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "sign": np.sign,
    "rem": np.fmod,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "not": np.invert,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "select_n": lambda which, *cases: np.where(which, cases[1], cases[0]),
}
