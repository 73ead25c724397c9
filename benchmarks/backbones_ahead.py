"""Compile the training step of several backbones with the pyramid ahead of time, and print what a device needs.

    python benchmarks/backbones_ahead.py --topology=v5e:2x2 [--words=,convnext_b,mit_b5,dinov2_b] [--images_per_device=4]

A topology is a name like v5e:2x2 or h100; see docs/guide/scaling.md for what must be installed. Each word is one of the config
`ade20k`, which brings the recipe of a backbone; an empty word is HRNet-W48. All networks have the paper's context module and both
pyramids, 150 classes, images of 512×512 pixels, and bfloat16. For each network, it prints the millions of parameters, the FLOPs of
a training step per image, the memory of a device, the estimated time of a step where the compiler gives an estimate (for TPUs),
and the seconds of compilation. Of the memory, arguments are mostly parameters and the state of the optimizer. Each row is printed
as soon as it is known.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
from steps_ahead import trace_step
from timing import describe_machine, print_table, write_json

from pyrseg_jax.ahead_of_time.programs import compile_program
from pyrseg_jax.ahead_of_time.topologies import find_target, need_no_devices
from pyrseg_jax.models.initial import abstract_variables, num_parameters

HEADER = (
    "backbone",
    "parameters, M",
    "GFLOPs per image",
    "arguments, GiB",
    "temporary, GiB",
    "total, GiB",
    "estimated step, ms",
    "compiling, s",
)


def measure(word: str, options: argparse.Namespace) -> dict:
    """Compile the training step of a backbone, and return what it needs."""
    target = find_target(options.topology)
    step = trace_step(f"ade20k:{word}".rstrip(":"), target, options.images_per_device, options.crop_px)
    program = compile_program(step.traced.lower(), "training step", target)
    clock_hz, cycles = target.accelerator and target.accelerator.clock_hz, program.cost.cycles
    return {
        "backbone": step.config.model.backbone,
        "parameters": num_parameters(abstract_variables(step.model)),
        "flops_per_image": step.count_flops_per_image(),
        "memory_bytes": program.memory_bytes,
        "estimated_step_s": cycles / clock_hz if cycles and clock_hz else None,
        "compile_s": program.compile_s,
    }


def row_of(found: dict) -> tuple[str, ...]:
    """Format what was found as a row of the table."""
    gib = [f"{found['memory_bytes'][kind] / 2**30:.2f}" for kind in ("arguments", "temporary", "total")]
    step_s = found["estimated_step_s"]
    step = "–" if step_s is None else f"{1e3 * step_s:.1f}"
    millions, giga = f"{found['parameters'] / 1e6:.1f}", f"{found['flops_per_image'] / 1e9:.1f}"
    return found["backbone"], millions, giga, *gib, step, f"{found['compile_s']:.0f}"


def main() -> None:
    """Compile one network after the other and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topology", help="TPUs or GPUs by name; by default this machine")
    parser.add_argument("--words", default=",convnext_b,mit_b5,dinov2_b", help="words of ade20k, separated by commas")
    parser.add_argument("--images_per_device", type=int, default=4)
    parser.add_argument("--crop_px", type=int, default=512)
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    if options.topology:
        need_no_devices()
    images = f"{options.images_per_device} images of {options.crop_px}×{options.crop_px} per device"
    print(f"{options.topology or 'this machine'}, {images}; {describe_machine()}\n", flush=True)
    found = []

    def rows():
        for word in options.words.split(","):
            found.append(measure(word, options))
            yield row_of(found[-1])

    print_table(HEADER, rows())
    write_json(options.json, found)


if __name__ == "__main__":
    main()
