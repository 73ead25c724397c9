"""Read from a compiled program's text what each instruction costs: bytes of main memory, and cycles where the compiler says."""

import dataclasses
import math
import re
from typing import NamedTuple

from pyrseg_jax.ahead_of_time.hlo_text import ELEMENT_BYTES

# Instructions that only name data.
FREE = {
    "parameter",
    "constant",
    "bitcast",
    "get-tuple-element",
    "tuple",
    "after-all",
    "partition-id",
    "replica-id",
    "iota",
}

_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?)\s?\b([a-z][a-z\-]*)\((.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_SCOPE = re.compile(r'op_name="([^"]*)"')
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_SCRATCH = re.compile(r", [us]8\[\d+\]\{0\}\)$")  # the last result of a call of cuDNN or cuBLAS


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction of the entry computation.

    Attributes:
      scope: the scopes in which JAX made it, such as `jit(step)/…`; empty where nothing tells.
      moved: bytes of main memory that it reads and writes.
      cycles: the compiler's estimate of its cycles; 0 where it makes none, as for GPUs.
    """

    scope: str
    moved: int
    cycles: int


class _Line(NamedTuple):
    name: str
    shape: str
    operation: str
    operands: list[str]
    text: str


def read_entry(text: str) -> list[Instruction]:
    """Return the instructions of a compiled program's entry computation, except those that only name data.

    What an instruction reads a part of counts as a whole, except for slices. What lies in a TPU's own memory does not count, nor
    the scratch space of library calls. An asynchronous instruction counts at its start.

    Args:
      text: `compiled.as_text()`.
    """
    entry = text[text.index("\nENTRY") + 1 :].partition("\n")[2]
    found = [line for line in map(_INSTRUCTION.match, entry.splitlines()) if line]
    lines = [_Line(m[1], m[2], m[3], _NAME.findall(m[4].partition(")")[0]), m[0]) for m in found]
    held = {line.name: _held(line) for line in lines}
    instructions = []
    for line, scope in zip(lines, _scopes(lines), strict=True):
        if line.operation not in FREE and not line.operation.endswith("-done"):
            read = sum(held.get(name, 0) for name in line.operands)
            cycles = _CYCLES.search(line.text)
            instructions.append(
                Instruction(scope, _moved(line, held[line.name], read), int(cycles[1]) if cycles else 0)
            )
    return instructions


def _scopes(lines: list[_Line]) -> list[str]:
    """Return the scope of each instruction. Copies that the compiler adds get that of the first instruction that uses them."""
    scopes, of_user = [], {}
    for line in reversed(lines):
        own = _SCOPE.search(line.text)
        scopes.append(own[1] if own else of_user.get(line.name, ""))
        of_user |= dict.fromkeys(line.operands, scopes[-1])
    return scopes[::-1]


def _held(line: _Line) -> int:
    """Return the bytes of an instruction's result in main memory. In layouts, S(1) and S(2) are a TPU's own memory."""
    shape = _SCRATCH.sub(")", line.shape) if 'custom_call_target="__cu' in line.text else line.shape
    return sum(_size(kind, sides) for kind, sides, place in _ARRAY.findall(shape) if "S(" not in place)


def _moved(line: _Line, held: int, read: int) -> int:
    """Return the bytes that an instruction moves; `held` are those of its result, `read` those of its operands."""
    if line.operation == "copy-start":  # its result names the operand, too
        return held
    if line.operation in ("slice", "slice-start"):
        arrays = [_size(kind, sides) for kind, sides, _ in _ARRAY.findall(line.shape)]
        if line.operation == "slice":
            return held + (arrays[0] if read else 0)
        return held - read + (arrays[-2] if read else 0)  # the result of a start is ((operand), slice, context)
    return held + read


def _size(kind: str, sides: str) -> int:
    return ELEMENT_BYTES.get(kind, 0) * math.prod(int(side) for side in sides.split(",") if side)
