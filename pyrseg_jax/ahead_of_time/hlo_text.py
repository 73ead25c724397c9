"""Read from a compiled program's text what no API of JAX tells: the traffic of its collectives, and its cycles with loops.

Everything else comes from `memory_analysis()` and `cost_analysis()`. As tried with jax 0.10.2, on CPU and for v5e:

* Neither of them says anything about collectives.
* `compiled.cost_analysis()` counts the body of a loop once. Gradient accumulation is a loop, so its `optimal_seconds` (which only
  TPUs have) and `flops` cannot be used. For four convolutions in a `lax.scan`, `optimal_seconds` is 0.51 ms, as for a single one;
  the compiler's estimates in the text, multiplied by the rounds of their loop, are 1.81 ms for four and 0.45 ms for one.
* `lowered.cost_analysis()` is None for TPUs. On CPU it gives the FLOPs of a program without loops; see `lowering.py`.
"""

import collections
import dataclasses
import re
from typing import NamedTuple

ELEMENT_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "s16": 2,
    "u16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "f64": 8,
}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*)?.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*)$")
_OPERATION = re.compile(r"(?:^|\s)([a-z][a-z\-]*)\(")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|called_computations|body|true_computation|false_computation)=\{?%?([\w.\-]+)")
_TRIPS = re.compile(r"known_trip_count\D*(\d+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# Programs for TPUs do not state the trip count of a loop. It has to be read from the loop's condition, which compares the counter
# with a constant.
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_CONSTANT = re.compile(r"^\s+(%[\w.\-]+) = [su]32\[\]\S* constant\((\d+)\)")
_LESS_THAN = re.compile(r"^\s+ROOT .* compare\([^,]*%[\w.\-]+, [^,]*?(%[\w.\-]+)\), direction=LT")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """The collectives of one kind in one run of a program.

    Attributes:
      count: number of instructions that are executed.
      bytes: size of their results on one device, added up.
    """

    count: int
    bytes: int


class Cost(NamedTuple):
    """The cost of one run of a program on one device.

    Attributes:
      collectives: kind → traffic, for the kinds that occur.
      cycles: the compiler's estimate of all instructions' cycles, added up; None if it makes none, as on CPU.
    """

    collectives: dict[str, Traffic]
    cycles: int | None


def cost_of(text: str) -> Cost:
    """Add up the collectives and the cycles of a compiled program; those inside a loop count once per round.

    Args:
      text: `compiled.as_text()`. A loop whose number of rounds is not a constant counts as one round.
    """
    entry, computations = _read(text)
    totals: dict[str, Traffic] = {}
    cycles = 0

    def visit(name: str, times: int) -> None:
        nonlocal cycles
        found = computations.get(name, _Computation())
        cycles += times * found.cycles
        for kind, size in found.collectives:
            before = totals.get(kind, Traffic(0, 0))
            totals[kind] = Traffic(before.count + times, before.bytes + times * size)
        for other, rounds in found.called:
            visit(other, times * (rounds if isinstance(rounds, int) else computations[rounds].limit))

    visit(entry, 1)
    return Cost(totals, cycles or None)


@dataclasses.dataclass
class _Computation:
    """One computation (block of instructions) of the program.

    Attributes:
      collectives: (kind, bytes) of each.
      called: other computations, and how often each runs: a number, or the name of the loop condition that tells it.
      cycles: estimated cycles of its own instructions.
      constants: name → value of its integer constants.
      limit: for a loop condition, the constant that the counter must stay below, which is the number of rounds.
    """

    collectives: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    called: list[tuple[str, int | str]] = dataclasses.field(default_factory=list)
    cycles: int = 0
    constants: dict[str, int] = dataclasses.field(default_factory=dict)
    limit: int = 1


def _read(text: str) -> tuple[str, dict[str, _Computation]]:
    """Return the name of the entry computation, and all computations by name."""
    entry, current = "", _Computation()
    computations = collections.defaultdict(_Computation)
    for line in text.splitlines():
        if line.endswith("{") and (start := _COMPUTATION.match(line)) and not line.startswith("HloModule"):
            current = computations[start[1]]
            entry = start[1] if line.startswith("ENTRY") else entry
        elif (instruction := _INSTRUCTION.match(line)) and (operation := _OPERATION.search(instruction[1])):
            _add_instruction(current, line, operation[1], instruction[1][: operation.start()])
    return entry, computations


def _add_instruction(computation: _Computation, line: str, operation: str, shape: str) -> None:
    """Note what one instruction tells; `shape` is the text of its result's shape."""
    kind = operation.removesuffix("-start")
    if kind in KINDS:
        computation.collectives.append((kind, _bytes_of(shape, operation)))
    else:
        computation.called += [(name, _rounds(line, kind)) for name in _CALLED.findall(line)]
    if estimate := _CYCLES.search(line):
        computation.cycles += int(estimate[1])
    if constant := _CONSTANT.match(line):
        computation.constants[constant[1]] = int(constant[2])
    elif limit := _LESS_THAN.match(line):
        computation.limit = computation.constants.get(limit[1], 1)


def _rounds(line: str, kind: str) -> int | str:
    """Return how often an instruction runs what it calls, or the name of the loop condition that tells it."""
    if kind != "while":
        return 1
    trips, condition = _TRIPS.search(line), _CONDITION.search(line)
    return int(trips[1]) if trips else condition[1] if condition else 1


def _bytes_of(shape: str, operation: str) -> int:
    """Return the bytes of an instruction's result.

    The result of an asynchronous start also holds its operands, which do not count.
    """
    sizes = [_size(kind, sides) for kind, sides in _SHAPE.findall(shape) if kind in ELEMENT_BYTES]
    if operation == "all-gather-start":  # (operands, results)
        sizes = sizes[len(sizes) // 2 :]
    elif operation == "collective-permute-start":  # (operand, result, contexts)
        sizes = sizes[1:2]
    return sum(sizes)


def _size(kind: str, sides: str) -> int:
    number = 1
    for side in filter(None, sides.split(",")):
        number *= int(side)
    return number * ELEMENT_BYTES[kind]
