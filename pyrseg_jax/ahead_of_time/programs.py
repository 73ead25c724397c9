"""Compile a lowered program, and say how much memory, computation and communication it needs."""

import dataclasses
import logging
import time

import jax

from pyrseg_jax.ahead_of_time.hlo_text import Cost, cost_of
from pyrseg_jax.ahead_of_time.topologies import Target

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Program:
    """A description of a compiled program.

    Attributes:
      compile_s: seconds that its compilation took.
      memory_bytes: bytes per device by kind, as `memory_of` returns them.
      cost: cycles and communication of one run, on one device.
    """

    compile_s: float
    memory_bytes: dict[str, int]
    cost: Cost

    def describe(self) -> dict:
        """Return the values as JSON: `compile_s`, `memory`, `cycles`, and `collectives` with `count` and `bytes`."""
        traffic = {kind: dataclasses.asdict(found) for kind, found in self.cost.collectives.items()}
        return {
            "compile_s": self.compile_s,
            "memory": self.memory_bytes,
            "cycles": self.cost.cycles,
            "collectives": traffic,
        }


def compile_program(lowered: jax.stages.Lowered, name: str, target: Target) -> Program:
    """Compile a program for `target` and analyze it; `name` is for the log."""
    log.info("compiling the %s", name)
    start = time.perf_counter()
    compiled = target.compile(lowered)
    compile_s = time.perf_counter() - start
    log.info("compiled the %s in %.0f s", name, compile_s)
    return Program(compile_s, memory_of(compiled), cost_of(compiled.as_text() or ""))


def memory_of(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Return the memory of a program on each device, in bytes.

    Returns:
      `arguments`, `outputs`, `shared` (the part of the outputs that reuses the memory of arguments), `temporary`, `code`, and
      their `total`.
    """
    found = compiled.memory_analysis()
    assert found is not None, "XLA analyzes the memory of programs for CPU, GPU and TPU"
    sizes = {
        "arguments": found.argument_size_in_bytes,
        "outputs": found.output_size_in_bytes,
        "shared": found.alias_size_in_bytes,
        "temporary": found.temp_size_in_bytes,
        "code": found.generated_code_size_in_bytes,
    }
    # "shared" is contained in both arguments and outputs: counted once, it has to be taken off the plain sum twice.
    return sizes | {"total": sum(sizes.values()) - 2 * sizes["shared"]}
