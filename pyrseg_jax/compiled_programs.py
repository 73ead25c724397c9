"""What a compiled program says of itself: its memory, and what its devices send each other."""

import collections
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


def collectives_of(text: str) -> dict[str, Traffic]:
    """Count the collectives in a compiled program's HLO; those in a loop as often as it runs.

    Args:
      text: `compiled.as_text()`.

    Returns:
      kind → its traffic, of those that occur. A loop whose number of rounds XLA does not know counts once.
    """
    entry, computations = _read(text)
    totals: dict[str, Traffic] = {}

    def visit(name: str, times: int) -> None:
        own, called = computations.get(name, ([], []))
        for kind, size in own:
            before = totals.get(kind, Traffic(0, 0))
            totals[kind] = Traffic(before.count + times, before.bytes + times * size)
        for other, rounds in called:
            visit(other, times * rounds)

    visit(entry, 1)
    return totals


def _read(text: str) -> tuple[str, dict]:
    """Return the entry's name, and of each computation its collectives (kind, bytes) and what it calls (name, times)."""
    entry, current = "", ""
    computations = collections.defaultdict(lambda: ([], []))
    for line in text.splitlines():
        if line.endswith("{") and (start := _COMPUTATION.match(line)) and not line.startswith("HloModule"):
            current = start[1]
            entry = current if line.startswith("ENTRY") else entry
        elif (instruction := _INSTRUCTION.match(line)) and (operation := _OPERATION.search(instruction[1])):
            collectives, called = computations[current]
            kind = operation[1].removesuffix("-start")
            if kind in KINDS:
                collectives.append((kind, _bytes_of(instruction[1][: operation.start()], operation[1])))
            trips = _TRIPS.search(line)
            rounds = int(trips[1]) if kind == "while" and trips else 1
            called += [(name, rounds) for name in _CALLED.findall(line) if kind not in KINDS]
    return entry, computations


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
