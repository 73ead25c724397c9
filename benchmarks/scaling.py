"""Time the training step on 1, 2 and 4 local devices, with a fixed batch in total and with a fixed batch per device.

    python benchmarks/scaling.py [--devices=1,2,4] [--backbone=hrnet_tiny] [--crop_px=128] [--batch_size=8] [--json=FILE]

Prints images/s. On a machine without accelerators, the devices are virtual and share its cores, so the figures show only what
splitting the work costs. Each number of devices is measured in a process of its own; the processes take turns, and the medians are
printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def serve(options) -> None:
    """Be one of the measured processes: compile the step, then time one step for each line on stdin."""
    import jax
    import numpy as np

    from pyrseg_jax.distributed import mesh as mesh_lib
    from pyrseg_jax.models.initial import initial_variables
    from pyrseg_jax.run import config as config_lib
    from pyrseg_jax.run import experiment
    from pyrseg_jax.training.step import initial_state, make_train_step

    values = config_lib.defaults()
    values.model.backbone = options.backbone
    values.model.semantic_width, values.model.key_width, values.model.unity_width = 64, 32, 32
    config = config_lib.resolve(values)
    model, optimizer = experiment.make_model(config, 20), experiment.make_optimizer(config)
    mesh = mesh_lib.make_mesh(options.serve, devices=jax.devices()[: options.serve])
    step = make_train_step(model, optimizer, experiment.make_objective(config), mesh)
    state = jax.device_put(initial_state(initial_variables(model, 0), optimizer), mesh_lib.replicated(mesh))
    rng, batches = np.random.default_rng(0), {}
    for kind, size in (
        ("fixed in total", options.batch_size),
        ("fixed per device", options.batch_size * options.serve),
    ):
        shape = (size, options.crop_px, options.crop_px)
        batch = {"image": rng.integers(0, 256, (*shape, 3), np.uint8), "label": rng.integers(0, 20, shape, np.uint8)}
        batches[kind] = mesh_lib.images_to_devices(mesh, batch), size
        state = jax.block_until_ready(step(state, batches[kind][0]))[0]
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        batch, size = batches[line.strip()]
        start = time.perf_counter()
        state = jax.block_until_ready(step(state, batch))[0]
        print(json.dumps(size / (time.perf_counter() - start)), flush=True)


def main() -> None:
    """Start a process for each number of devices, and let them measure in turn."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--devices", default="1,2,4", help="numbers of devices, separated by commas")
    parser.add_argument("--backbone", default="hrnet_tiny")
    parser.add_argument("--crop_px", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    from timing import describe_machine, print_table, write_json

    counts = [int(count) for count in options.devices.split(",")]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={max(counts)}"
    # Virtual devices wait for each other in a pool of threads that they share. If it is too small, they wait forever.
    threads = {"NPROC": str(max(os.cpu_count(), 4 * max(counts)))}
    env = os.environ | {"XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | threads
    command = [sys.executable, __file__, *sys.argv[1:]]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    servers = {count: subprocess.Popen([*command, f"--serve={count}"], **pipes) for count in counts}
    rates = {(count, kind): [] for kind in ("fixed in total", "fixed per device") for count in counts}
    for server in servers.values():
        json.loads(server.stdout.readline())
    for _ in range(options.rounds):
        for (count, kind), found in rates.items():
            servers[count].stdin.write(kind + "\n")
            servers[count].stdin.flush()
            found.append(json.loads(servers[count].stdout.readline()))
    for server in servers.values():
        server.stdin.close()
        server.wait()
    medians = {key: statistics.median(found) for key, found in rates.items()}
    print(f"{options.backbone}, {options.crop_px} px, batch {options.batch_size}; images/s; {describe_machine()}\n")
    rows = []
    for count in counts:
        pair = [medians[count, kind] for kind in ("fixed in total", "fixed per device")]
        shares = [
            rate / medians[counts[0], kind]
            for rate, kind in zip(pair, ("fixed in total", "fixed per device"), strict=True)
        ]
        rows.append((count, *(f"{rate:.1f} ({share:.2f} ×)" for rate, share in zip(pair, shares, strict=True))))
    print_table(("devices", "fixed batch in total", "fixed batch per device"), rows)
    write_json(options.json, [{"devices": c, "batch": k, "images_per_second": v} for (c, k), v in medians.items()])


if __name__ == "__main__":
    main()
