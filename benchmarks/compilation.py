"""Seconds to compile the training step with equal blocks compiled once (`model.scan`) and unrolled, one after the other.

    python benchmarks/compilation.py [--topology=v5e:2x2] [--backbone=hrnet_w48] [--json=FILE]

For this machine, or ahead of time for TPUs or GPUs by name, like v5e:2x2 or h100 (none are needed, but their compiler is). Prints
seconds of tracing and of compiling, those of all cores together, the number of convolutions in the program (for GPUs they are
calls, and are not counted), the temporary memory of a device, the compiler's estimate of a step where it makes one (for TPUs), and
the ratio of the two compilations. `--only=on` or `--only=off` leaves the other out.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
from timing import describe_machine, print_table, write_json

from pyrseg_jax.ahead_of_time.programs import cost_of, memory_of
from pyrseg_jax.ahead_of_time.topologies import find_target, need_no_devices
from pyrseg_jax.commands.compile import lower_training
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.run import config as config_lib


def measure(options, scan: str) -> dict:
    """Lower and compile the step, blocks scanned or not."""
    values = config_lib.defaults()
    values.model.backbone, values.model.scan = options.backbone, scan
    target = find_target(options.topology)
    mesh = mesh_lib.make_mesh(devices=target.devices)
    values.training.batch_size = options.images_per_device * mesh.size
    values.data.crop_px = options.crop_px
    config = config_lib.resolve(values)
    start = time.perf_counter()
    lowered = lower_training(config, mesh, options.num_classes, config.training.batch_size)
    traced, busy = time.perf_counter(), time.process_time()
    compiled = target.compile(lowered)
    compile_s, compile_core_s = time.perf_counter() - traced, time.process_time() - busy
    program = compiled.as_text()
    found = {
        "scan": scan,
        "trace_s": traced - start,
        "compile_s": compile_s,
        "compile_core_s": compile_core_s,
        "convolutions": program.count(" convolution("),
        "temporary_bytes": memory_of(compiled)["temporary"],
    }
    cycles = cost_of(program).cycles
    clock_hz = target.chip.clock_hz if target.chip else None
    return found | {"estimated_step_s": cycles / clock_hz if cycles and clock_hz else None}


def row_of(found: dict) -> tuple:
    """Lay a measurement out for the table."""
    step_s = found["estimated_step_s"]
    seconds = (f"{found['trace_s']:.1f}", f"{found['compile_s']:.0f}", f"{found['compile_core_s']:.0f}")
    step = "–" if step_s is None else f"{1e3 * step_s:.1f}"
    return (found["scan"], *seconds, found["convolutions"], f"{found['temporary_bytes'] / 2**30:.2f}", step)


def main() -> None:
    """Compile both forms and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topology", help="TPUs or GPUs by name; by default this machine")
    parser.add_argument("--backbone", default="hrnet_w48")
    parser.add_argument("--crop_px", type=int, default=512)
    parser.add_argument("--num_classes", type=int, default=150)
    parser.add_argument("--images_per_device", type=int, default=4)
    parser.add_argument("--only", choices=("on", "off"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    if options.topology:
        need_no_devices()
    found = []
    print(f"{options.backbone}, {options.topology or 'this machine'}; {describe_machine()}", flush=True)
    for scan in (options.only,) if options.only else ("on", "off"):
        found.append(measure(options, scan))
        print(f"scan {scan}: {found[-1]['compile_s']:.0f} s", flush=True)
    header = (
        "model.scan",
        "tracing, s",
        "compiling, s",
        "of all cores, s",
        "convolutions",
        "temporary, GiB",
        "step, ms",
    )
    print_table(header, map(row_of, found))
    if len(found) == 2:
        scanned, unrolled = found
        print(
            f"\ncompiling, scanned / unrolled: {scanned['compile_s'] / unrolled['compile_s']:.2f}; of all cores: ",
            end="",
        )
        print(f"{scanned['compile_core_s'] / unrolled['compile_core_s']:.2f}")
    write_json(options.json, found)


if __name__ == "__main__":
    main()
