"""Time the compilation of the training step, for this machine or ahead of time for TPUs and GPUs.

    python benchmarks/compilation.py [--topology=v5e:2x2] [--backbone=hrnet_w48] [--remat=off,full] [--json=FILE]

A topology is a name like v5e:2x2 or h100. The devices need not be there, but their compiler must be installed. Prints, for each way
to rematerialize activations, the seconds of tracing and of compiling, the compiler's CPU seconds on all cores, the number of
convolutions in the program (programs for GPUs call a library instead, so they have none), the temporary memory of a device, and the
estimated time of a step where the compiler gives an estimate (for TPUs).
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
from timing import describe_machine, print_table, write_json

from pyrseg_jax.ahead_of_time.hlo_text import cost_of
from pyrseg_jax.ahead_of_time.lowering import trace_training
from pyrseg_jax.ahead_of_time.programs import memory_of
from pyrseg_jax.ahead_of_time.topologies import find_target, need_no_devices
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment

HEADER = (
    "model.remat",
    "tracing, s",
    "compiling, s",
    "of all cores, s",
    "convolutions",
    "temporary, GiB",
    "estimated step, ms",
)


def measure(options: argparse.Namespace, remat: str) -> dict:
    """Lower and compile the training step, and return the measurements."""
    values = config_lib.defaults()
    values.model.backbone, values.model.remat = options.backbone, remat
    target = find_target(options.topology)
    mesh = mesh_lib.make_mesh(devices=target.devices)
    values.training.batch_size = options.images_per_device * mesh.size
    values.data.crop_px = options.crop_px
    config = config_lib.resolve(values)
    start = time.perf_counter()
    lowered = trace_training(
        experiment.make_model(config, options.num_classes),
        experiment.make_optimizer(config),
        experiment.make_objective(config),
        mesh,
        batch_size=config.training.batch_size,
        crop_px=config.data.crop_px,
    ).lower()
    traced, busy = time.perf_counter(), time.process_time()
    compiled = target.compile(lowered)
    compile_s, compile_core_s = time.perf_counter() - traced, time.process_time() - busy
    program = compiled.as_text() or ""
    cycles = cost_of(program).cycles
    clock_hz = target.accelerator.clock_hz if target.accelerator else None
    return {
        "remat": remat,
        "trace_s": traced - start,
        "compile_s": compile_s,
        "compile_core_s": compile_core_s,
        "convolutions": program.count(" convolution("),
        "temporary_bytes": memory_of(compiled)["temporary"],
        "estimated_step_s": cycles / clock_hz if cycles and clock_hz else None,
    }


def row_of(found: dict) -> tuple:
    """Format a measurement as a row of the table."""
    step_s = found["estimated_step_s"]
    seconds = (f"{found['trace_s']:.1f}", f"{found['compile_s']:.0f}", f"{found['compile_core_s']:.0f}")
    step = "–" if step_s is None else f"{1e3 * step_s:.1f}"
    return (found["remat"], *seconds, found["convolutions"], f"{found['temporary_bytes'] / 2**30:.2f}", step)


def main() -> None:
    """Compile each program and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topology", help="TPUs or GPUs by name; by default this machine")
    parser.add_argument("--backbone", default="hrnet_w48")
    parser.add_argument("--crop_px", type=int, default=512)
    parser.add_argument("--num_classes", type=int, default=150)
    parser.add_argument("--images_per_device", type=int, default=4)
    parser.add_argument("--remat", default="off", help="values of model.remat, separated by commas")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    if options.topology:
        need_no_devices()
    print(f"{options.backbone}, {options.topology or 'this machine'}; {describe_machine()}\n", flush=True)
    found = [measure(options, remat) for remat in options.remat.split(",")]
    print_table(HEADER, map(row_of, found))
    write_json(options.json, found)


if __name__ == "__main__":
    main()
