"""Measure memory and time of the training step: plain, with rematerialization, and with micro-batches.

    python benchmarks/memory.py [--backbone=hrnet_small] [--crop_px=256] [--batch_size=8] [--steps=5] [--json=FILE]

Prints, for each way of running, the temporary memory that the compiler plans, the seconds of compilation, and the time of a step
relative to the plain one. The steps of all ways take turns, and the medians are printed.
"""

import argparse
import functools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
from timing import describe_machine, in_turn, print_table, write_json

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.training.step import initial_state, make_train_step

WAYS = {
    "plain": {},
    "remat light": {"model.remat": "light"},
    "remat full": {"model.remat": "full"},
    "accumulate 2": {"training.accumulate": 2},
    "accumulate 4": {"training.accumulate": 4},
}
NUM_CLASSES = 12


def prepare(options, keys: dict):
    """Compile the step for one way of running, with these configuration keys.

    Returns:
      The step, its state, its batch, its temporary memory in MB, and the seconds of compilation.
    """
    values = config_lib.defaults()
    values.model.backbone, values.model.dtype, values.data.crop_px = options.backbone, options.dtype, options.crop_px
    values.model.semantic_width, values.model.key_width, values.model.unity_width = 64, 32, 32
    values.training.batch_size = options.batch_size
    values.update_from_flattened_dict(keys)
    config = config_lib.resolve(values)
    model, optimizer, mesh = (
        experiment.make_model(config, NUM_CLASSES),
        experiment.make_optimizer(config),
        mesh_lib.make_mesh(1),
    )
    state = jax.device_put(initial_state(initial_variables(model, 0), optimizer), mesh_lib.replicated(mesh))
    rng, shape = np.random.default_rng(0), (options.batch_size, options.crop_px, options.crop_px)
    image, label = rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, NUM_CLASSES, shape, np.uint8)
    batch = mesh_lib.images_to_devices(mesh, {"image": image, "label": label})
    objective = experiment.make_objective(config)
    step = make_train_step(model, optimizer, objective, mesh, accumulate=config.training.accumulate)
    start = time.perf_counter()
    compiled = step.lower(state, batch).compile()
    seconds = time.perf_counter() - start
    return compiled, state, batch, compiled.memory_analysis().temp_size_in_bytes / 1e6, seconds


def main() -> None:
    """Measure all ways in one process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="hrnet_small")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--crop_px", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="how many steps to time")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ways = {name: prepare(options, keys) for name, keys in WAYS.items()}
    states = {name: way[1] for name, way in ways.items()}

    def run(name):
        step, _, batch, *_ = ways[name]
        states[name], metrics = step(states[name], batch)
        jax.block_until_ready(metrics)

    seconds = in_turn({name: functools.partial(run, name) for name in ways}, options.steps)
    found = [
        {"way": name, "temporary_mb": way[3], "compile_s": way[4], "step_ratio": seconds[name] / seconds["plain"]}
        for name, way in ways.items()
    ]
    print(f"{options.backbone}, batch {options.batch_size} of {options.crop_px} px; {describe_machine()}\n")
    rows = [(r["way"], f"{r['temporary_mb']:.0f}", f"{r['compile_s']:.1f}", f"{r['step_ratio']:.2f}") for r in found]
    print_table(("way", "temporary memory, MB", "compilation, s", "time of a step / plain"), rows)
    print(f"\nplain step: {seconds['plain']:.2f} s")
    write_json(options.json, found)


if __name__ == "__main__":
    main()
