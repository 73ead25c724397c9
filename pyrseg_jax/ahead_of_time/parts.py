"""Attribute what a training step computes and moves to the parts of the network.

A product is a convolution or a matrix product. `count_products` counts those of the step before compilation, and `count_moved` the
bytes that every instruction of the compiled program reads and writes. The products alone must read their operands and write their
results, so the ratio of both tells what normalizations, resizing, layouts, and the optimizer add.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

import jax
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from pyrseg_jax.ahead_of_time.hlo_traffic import read_entry

# The order of the rows in tables.
PARTS = (
    "backbone, stem",
    "backbone, stage 1",
    "backbone, stage 2",
    "backbone, stage 3",
    "backbone, stage 4",
    "backbone, rest",
    "context module",
    "heads",
    "targets and losses",
    "optimizer, and copies without a name",
)


@dataclasses.dataclass
class Products:
    """The products of one part in one direction.

    Attributes:
      flops: two per multiplication; those with the zeros that a strided convolution's gradient is spread by do not count.
      bytes: sizes of all operands and results.
    """

    flops: float = 0.0
    bytes: float = 0.0


def part_of(name: str) -> tuple[str, str]:
    """Return the part of a training step and the direction, `forward` or `backward`, of an operation.

    Args:
      name: scopes joined by slashes, such as `jit(step)/transpose(jvp(Segmenter))/backbone/stage3/…`.
    """
    direction = "backward" if "transpose(" in name else "forward"
    if "Segmenter" not in name:
        is_differentiated = "jvp(" in name
        return ("targets and losses", direction) if is_differentiated else (PARTS[-1], "forward")
    if found := re.search(r"Segmenter\)+/(context|backbone)(?:/(stem|stage)(\d)?)?", name):
        module, place, number = found.groups()
        if module == "context":
            return "context module", direction
        return f"backbone, {place or 'rest'}{f' {number}' if place == 'stage' else ''}", direction
    return "heads", direction


def count_products(step: ClosedJaxpr, platform: str) -> dict[tuple[str, str], Products]:
    """Count the products of a traced training step, by part and direction.

    Args:
      step: `traced.jaxpr` of the step. It must have no loops: their rounds would have to be known.
      platform: such as `tpu`; of computations that differ between platforms, that of this one counts.
    """
    found = collections.defaultdict(Products)
    for name, equation in _equations(step.jaxpr, "", platform):
        count = {"dot_general": _dot_flops, "conv_general_dilated": _convolution_flops}.get(equation.primitive.name)
        if count is not None:
            products = found[part_of(name)]
            products.flops += count(equation)
            products.bytes += sum(
                _array(x).size * _array(x).dtype.itemsize for x in (*equation.invars, *equation.outvars)
            )
    return dict(found)


def _equations(jaxpr: Jaxpr, scope: str, platform: str) -> Iterator[tuple[str, JaxprEqn]]:
    """Yield all equations, with those of inner computations, and the scopes of each.

    A gradient that JAX takes of a function inside of a backward pass computes this function, too, and uses only its gradient. The
    compiler removes what nothing uses, so it is left out.
    """
    used, live = set(jaxpr.outvars), []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not used.isdisjoint(equation.outvars):
            live.append(equation)
            used.update(x for x in equation.invars if isinstance(x, Var))
    for equation in reversed(live):
        name = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
        yield name, equation
        for inner in _inner(equation, platform):
            yield from _equations(inner, name, platform)


def _inner(equation: JaxprEqn, platform: str) -> Iterator[Jaxpr]:
    if platforms := equation.params.get("branches_platforms"):
        is_ours = [p is None or platform in p for p in platforms]
        yield equation.params["branches"][is_ours.index(True)].jaxpr
        return
    for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr)):
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


def _array(atom: Var | Literal) -> ShapedArray:
    assert isinstance(atom.aval, ShapedArray), atom
    return atom.aval


def _dot_flops(equation: JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    sides = _array(equation.invars[0]).shape
    return 2.0 * _array(equation.outvars[0]).size * math.prod(sides[i] for i in contracted)


def _convolution_flops(equation: JaxprEqn) -> float:
    kernel, spec = _array(equation.invars[1]).shape, equation.params["dimension_numbers"].rhs_spec
    per_result = math.prod(kernel) / kernel[spec[0]]  # the first number is the dimension of the output channels
    zeros = math.prod(equation.params["lhs_dilation"])
    return 2.0 * _array(equation.outvars[0]).size * per_result / zeros


@dataclasses.dataclass
class Moved:
    """What the instructions of one part in one direction cost: bytes of main memory, and cycles (0 where they are not known)."""

    bytes: int = 0
    cycles: int = 0


def count_moved(text: str) -> dict[tuple[str, str], Moved]:
    """Add up what the instructions of a compiled training step cost, by part and direction.

    Args:
      text: `compiled.as_text()` of a step without loops. Bytes that stay in a cache count, too.
    """
    found = collections.defaultdict(Moved)
    for instruction in read_entry(text):
        moved = found[part_of(instruction.scope)]
        moved.bytes += instruction.moved
        moved.cycles += instruction.cycles
    return dict(found)
