"""Compare the bytes that a training step moves with those that it must move, part by part, compiled ahead of time.

    python benchmarks/bounds.py --topology=h100 [--config=ade20k] [--images_per_device=4] [--crop_px=512] [--json=FILE]

A topology is a name like v5e:2x2 or h100; docs/guide/scaling.md says what must be installed. Prints for each part of the network,
forward and backward: the GFLOPs of its convolutions and matrix products per image, the megabytes that these alone must read and
write, those that all instructions of the compiled program move, their ratio, and three times per image: at the peak FLOP rate, at
the bandwidth of the memory for the bytes moved, and, for TPUs, as the compiler estimates it. The first two times are bounds.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
from steps_ahead import trace_step
from timing import describe_machine, print_table, write_json

from pyrseg_jax.ahead_of_time.parts import PARTS, Moved, Products, count_moved, count_products
from pyrseg_jax.ahead_of_time.topologies import find_target, need_no_devices

PLATFORMS = {"v": "tpu", "h": "cuda", "a": "cuda"}  # by the first letter of the topology
HEADER = (
    "part",
    "direction",
    "GFLOPs",
    "must move, MB",
    "moves, MB",
    "ratio",
    "products, ms",
    "memory, ms",
    "estimate, ms",
)


def measure(options: argparse.Namespace) -> list[dict]:
    """Compile the training step, and return one record per part and direction, per image."""
    target = find_target(options.topology)
    step = trace_step(options.config, target, options.images_per_device, options.crop_px)
    batch_size = step.config.training.batch_size
    products = count_products(step.traced.jaxpr, PLATFORMS[options.topology[0]])
    moved = count_moved(target.compile(step.traced.lower()).as_text() or "")
    accelerator, images = target.accelerator, options.images_per_device
    assert accelerator is not None, "named topologies have figures"
    records = []
    for part in PARTS:
        for direction in ("forward", "backward"):
            # The step before compilation is that of all devices, the compiled one that of each.
            ours, compiled = products.get((part, direction), Products()), moved.get((part, direction), Moved())
            if ours.flops or compiled.bytes:
                flops, needed, all_bytes = ours.flops / batch_size, ours.bytes / batch_size, compiled.bytes / images
                clock_hz = accelerator.clock_hz
                records.append(
                    {
                        "part": part,
                        "direction": direction,
                        "flops": flops,
                        "needed_bytes": needed,
                        "moved_bytes": all_bytes,
                        "products_s": flops / accelerator.flops_per_s,
                        "memory_s": all_bytes / accelerator.memory_bytes_per_s,
                        "estimated_s": compiled.cycles / clock_hz / images if clock_hz else 0.0,
                    }
                )
    total = {key: sum(record[key] for record in records) for key in records[0] if key not in ("part", "direction")}
    return [*records, {"part": "all", "direction": ""} | total]


def row_of(record: dict) -> tuple[str, ...]:
    """Format a record as a row of the table."""
    ratio = f"{record['moved_bytes'] / record['needed_bytes']:.2f}" if record["needed_bytes"] else "–"
    times = [f"{1e3 * record[key]:.3f}" if record[key] else "–" for key in ("products_s", "memory_s", "estimated_s")]
    sizes = [
        f"{record['flops'] / 1e9:.1f}",
        f"{record['needed_bytes'] / 1e6:.1f}",
        f"{record['moved_bytes'] / 1e6:.1f}",
    ]
    return record["part"], record["direction"], *sizes, ratio, *times


def main() -> None:
    """Compile one training step, and print a table of its parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topology", required=True, help="TPUs or GPUs by name")
    parser.add_argument(
        "--config", default="ade20k", help="a packaged config with its words, such as ade20k:convnext_b"
    )
    parser.add_argument("--images_per_device", type=int, default=4)
    parser.add_argument("--crop_px", type=int, default=512)
    parser.add_argument("--json", type=Path, help="also write the records to this file")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    need_no_devices()
    images = f"{options.images_per_device} images of {options.crop_px}×{options.crop_px} per device"
    print(f"{options.config}, {options.topology}, {images}, per image; {describe_machine()}\n", flush=True)
    records = measure(options)
    print_table(HEADER, map(row_of, records))
    write_json(options.json, records)


if __name__ == "__main__":
    main()
