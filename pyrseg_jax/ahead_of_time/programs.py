"""What a compiled program says of itself: its memory, its time, and what its devices send each other."""

import collections
import dataclasses
import re
from typing import NamedTuple

import jax

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
# For TPUs the number of rounds is told by nothing but the loop's condition, which holds the counter against it.
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_CONSTANT = re.compile(r"^\s+(%[\w.\-]+) = [su]32\[\]\S* constant\((\d+)\)")
_BELOW = re.compile(r"^\s+ROOT .* compare\([^,]*%[\w.\-]+, [^,]*?(%[\w.\-]+)\), direction=LT")


class Traffic(NamedTuple):
    """Collectives of one kind: how many are run, and how many bytes their results have on one device."""

    count: int
    bytes: int


def memory_of(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Return bytes per device: `arguments`, `outputs`, of these `shared` with arguments, `temporary`, `code`, and `total`."""
    found = compiled.memory_analysis()
    sizes = {
        "arguments": found.argument_size_in_bytes,
        "outputs": found.output_size_in_bytes,
        "shared": found.alias_size_in_bytes,
        "temporary": found.temp_size_in_bytes,
        "code": found.generated_code_size_in_bytes,
    }
    return sizes | {"total": sum(sizes.values()) - 2 * sizes["shared"]}


class Cost(NamedTuple):
    """What one run of a program is expected to cost one device.

    Attributes:
      collectives: kind → its traffic, of those that occur.
      cycles: of computing, as the compiler estimates them; None if it says nothing, as on CPU.
    """

    collectives: dict[str, Traffic]
    cycles: int | None


def cost_of(text: str) -> Cost:
    """Add up what a compiled program's HLO says of its instructions; of those in a loop, as often as it runs.

    Args:
      text: `compiled.as_text()`. A loop counts once if it does not count up to a constant.
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
    """One block of HLO: its collectives (kind, bytes), its calls (name, and how often or the condition that says so)."""

    collectives: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    called: list[tuple[str, int | str]] = dataclasses.field(default_factory=list)
    cycles: int = 0
    constants: dict[str, int] = dataclasses.field(default_factory=dict)
    limit: int = 1  # of a condition: below what the counter has to be


def _read(text: str) -> tuple[str, dict[str, _Computation]]:
    """Return the entry's name, and all computations by name."""
    entry, current = "", _Computation()
    computations = collections.defaultdict(_Computation)
    for line in text.splitlines():
        if line.endswith("{") and (start := _COMPUTATION.match(line)) and not line.startswith("HloModule"):
            current = computations[start[1]]
            entry = start[1] if line.startswith("ENTRY") else entry
        elif (instruction := _INSTRUCTION.match(line)) and (operation := _OPERATION.search(instruction[1])):
            kind = operation[1].removesuffix("-start")
            if kind in KINDS:
                current.collectives.append((kind, _bytes_of(instruction[1][: operation.start()], operation[1])))
            else:
                current.called += [(name, _rounds(line, kind)) for name in _CALLED.findall(line)]
            if estimate := _CYCLES.search(line):
                current.cycles += int(estimate[1])
            if constant := _CONSTANT.match(line):
                current.constants[constant[1]] = int(constant[2])
            elif limit := _BELOW.match(line):
                current.limit = current.constants.get(limit[1], 1)
    return entry, computations


def _rounds(line: str, kind: str) -> int | str:
    """Return how often an instruction runs what it calls, or the name of the condition that says so."""
    if kind != "while":
        return 1
    trips, condition = _TRIPS.search(line), _CONDITION.search(line)
    return int(trips[1]) if trips else condition[1] if condition else 1


def _bytes_of(shape: str, operation: str) -> int:
    """Return the bytes of a result; of an asynchronous start, whose result also holds its operands, those of the output."""
    sizes = [_size(kind, sides) for kind, sides in _SHAPE.findall(shape) if kind in ELEMENT_BYTES]
    if operation in ("all-gather-start", "collective-permute-start"):  # (operands, results, …)
        sizes = sizes[len(sizes) // 2 :] if operation.startswith("all") else sizes[1:2]
    return sum(sizes)


def _size(kind: str, sides: str) -> int:
    number = 1
    for side in filter(None, sides.split(",")):
        number *= int(side)
    return number * ELEMENT_BYTES[kind]
