"""Rules for operations that hold programs of their own: calls, loops of known length, and choices of the platform."""

from typing import Any

import numpy as np

from pyrseg_jax.export.onnx.axes import concatenate, cut, reshape
from pyrseg_jax.export.onnx.elementwise import combine, scalar
from pyrseg_jax.export.onnx.graph import tensor
from pyrseg_jax.export.onnx.rule import Rule, Unsupported
from pyrseg_jax.export.onnx.values import Value, constant_of

MAX_STEPS = 512  # of a loop, which becomes as many copies of its nodes


def _names(jaxpr: Any) -> list[str]:
    return [equation.primitive.name for equation in jaxpr.eqns]


def _call(converter: Any, params: dict, values: list[Value]) -> list:
    jaxpr = params.get("jaxpr", params.get("call_jaxpr"))
    if jaxpr is None:
        raise Unsupported("a call of something else than a program")
    if not hasattr(jaxpr, "consts"):  # without constants, as of jax.checkpoint
        return converter.run(jaxpr, (), values, params["used"])
    names = _names(jaxpr.jaxpr)
    if names == ["neg", "max", "add"] and len(values) == 2:  # models.xla_cpu.add_relu: x + max(y, -x)
        total = combine(converter.graph, "Add", values, values[0].dtype)
        return [combine(converter.graph, "Relu", [total], total.dtype)]
    if params.get("name") == "resize" and names == ["platform_index", "cond"] and not values[0].is_constant:
        return [_resize(converter, values[0], tuple(jaxpr.out_avals[0].shape))]
    return converter.run(jaxpr.jaxpr, jaxpr.consts, values, params["used"])


def _resize(converter: Any, x: Value, shape: tuple) -> Value:
    """Resample bilinearly with half-pixel centers, see `models.resample.resize`.

    The node takes a factor for each of the four axes. With sizes of height and width alone, onnxruntime 1.32 fails to move
    transpositions through the node in 8-bit files.
    """
    graph, order = converter.graph, (0, 3, 1, 2)
    x = graph.expanded(x)
    factors = [1.0, 1.0, *(_factor(x.shape[axis], int(shape[axis])) for axis in (1, 2))]
    scales = graph.constant(np.array(factors, np.float32))
    settings = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return tensor(graph.add("Resize", graph.ordered(x, order), "", scales, **settings), shape, x.dtype, order)


def _factor(side: int, new_side: int) -> np.float32:
    """Return the factor whose product with a side is the new side, rounded down, in float32 and in float64."""
    factor = np.float32(new_side / side)
    while int(side * float(factor)) < new_side:
        factor = np.nextafter(factor, np.float32(np.inf))
    return factor


def _platform(converter: Any, params: dict, values: list[Value]) -> list[Value]:
    """Choose the version that is not for a platform of its own: the plain one."""
    platforms = params["platforms"]
    return [constant_of(np.int32(next(i for i, names in enumerate(platforms) if names is None)))]


def _choice(converter: Any, params: dict, values: list[Value]) -> list:
    which, *values = values
    branches = params["branches"]
    if all("erf" in _names(b.jaxpr) or "erfc" in _names(b.jaxpr) for b in branches) and len(values) == 1:
        return [_gelu(converter, values[0])]
    if which.constant is None:
        raise Unsupported("a choice between programs that depends on the image")
    chosen = branches[min(max(int(which.constant.item()), 0), len(branches) - 1)]
    return converter.run(chosen.jaxpr, chosen.consts, values, params["used"])


def _gelu(converter: Any, x: Value) -> Value:
    """Add the exact Gaussian error linear unit (`models.xla_cpu.gelu`) in the form that onnxruntime fuses."""
    graph = converter.graph
    share = combine(graph, "Erf", [combine(graph, "Div", [x, scalar(np.sqrt(2.0), x)], x.dtype)], x.dtype)
    product = combine(graph, "Mul", [x, combine(graph, "Add", [share, scalar(1.0, x)], x.dtype)], x.dtype)
    return combine(graph, "Mul", [product, scalar(0.5, x)], x.dtype)


def _loop(converter: Any, params: dict, values: list[Value]) -> list:
    """Unroll a loop of known length."""
    length, num_consts, num_carry = params["length"], params["num_consts"], params["num_carry"]
    if not isinstance(length, int) or length > MAX_STEPS:
        raise Unsupported(f"a loop of {length} steps, at most {MAX_STEPS} are written")
    graph, body, used = converter.graph, params["jaxpr"], params["used"]
    fixed, carry, series = values[:num_consts], values[num_consts:][:num_carry], values[num_consts + num_carry :]
    outputs: list[list[Value]] = []
    for step in reversed(range(length)) if params["reverse"] else range(length):
        current = [reshape(graph, cut(graph, x, 0, step, step + 1), x.shape[1:]) for x in series]
        wanted = [True] * num_carry + used[num_carry:]
        found = converter.run(body.jaxpr, body.consts, [*fixed, *carry, *current], wanted)
        carry = found[:num_carry]
        outputs.append(found[num_carry:])
    outputs = outputs[::-1] if params["reverse"] else outputs
    joined: list[Value | None] = []
    for column, is_used in zip(zip(*outputs, strict=True), used[num_carry:], strict=True):
        parts = [reshape(graph, value, (1, *value.shape)) for value in column] if is_used else []
        joined.append(concatenate(graph, parts, 0) if is_used else None)
    return [*carry, *joined]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"), _call),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"), _call),
    "platform_index": _platform,
    "cond": _choice,
    "scan": _loop,
}
