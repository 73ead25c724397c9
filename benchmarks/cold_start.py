"""From launch to the second training step: once with an empty compilation cache, once with what the first left in it.

    python benchmarks/cold_start.py [--json=FILE] [-- --config=configs/scenes.py --config.model.backbone=hrnet_small …]

Runs `python -m pyrseg_jax.main` twice with the arguments after `--`, and prints, per launch, seconds until the package is
imported, until the first batch is there (data, weights, checkpoint folder), until the first and the second step are done; beside
them the seconds of tracing, lowering and compiling that are parts of these, the number of programs and how many came from the
cache. A data set that has to be prepared is prepared before.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RESULT = "cold_start.json"
DURATIONS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}


def launch(arguments: list[str], cache: Path) -> dict:
    """Start a run in a workdir of its own, and return what it measured."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, __file__, "--child", place, repr(time.time()), *arguments]
        env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        done = subprocess.run([*command, f"--workdir={place}/run"], cwd=ROOT, env=env, capture_output=True, text=True)
        result = Path(place) / RESULT
        if not result.exists():
            sys.exit(f"the run ended before its second step:\n{done.stderr[-2000:]}")
        return json.loads(result.read_text())


def child(place: Path, start: float, arguments: list[str]) -> None:
    """Be the run: note the times, and end it after the second step."""
    import jax

    from pyrseg_jax import main
    from pyrseg_jax.data.pipeline import TrainingBatches
    from pyrseg_jax.run import experiment

    found = {"imported": time.time() - start, "programs": 0, "from cache": 0} | dict.fromkeys(DURATIONS.values(), 0.0)

    def add(event, seconds, **_):
        if event in DURATIONS:
            found[DURATIONS[event]] += seconds
            found["programs"] += event.endswith("backend_compile_duration")

    def count(event, **_):
        found["from cache"] += event == "/jax/compilation_cache/cache_hits"

    jax.monitoring.register_event_duration_secs_listener(add)
    jax.monitoring.register_event_listener(count)
    next_batch, make_step, steps = TrainingBatches.__next__, experiment.make_step, []

    def noted_next_batch(self):
        found.setdefault("first batch asked for", time.time() - start)
        return next_batch(self)

    def make_noted_step(*parts):
        step = make_step(*parts)

        def noted_step(state, batch):
            state, metrics = step(state, batch)
            jax.block_until_ready(state)
            steps.append(time.time() - start)
            if len(steps) == 2:
                found["first step"], found["second step"] = steps
                (place / RESULT).write_text(json.dumps(found))
                os._exit(0)  # no more is measured
            return state, metrics

        return noted_step

    TrainingBatches.__next__, experiment.make_step = noted_next_batch, make_noted_step
    main.main(["main", *arguments])


def main() -> None:
    """Launch twice and print both."""
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
        return
    from timing import describe_machine, print_table, write_json

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("arguments", nargs="*", default=["--config=configs/scenes.py"], help="of the run, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        # Prepares the data, and fills the files of this machine's own cache.
        launch(options.arguments, Path(cache) / "before")
        cold, warm = (launch(options.arguments, Path(cache) / "measured") for _ in range(2))
    print(f"{' '.join(options.arguments)}; seconds; {describe_machine()}\n")
    names = (
        "imported",
        "first batch asked for",
        "first step",
        "second step",
        *DURATIONS.values(),
        "programs",
        "from cache",
    )
    rows = [
        (name, *(f"{run[name]:.1f}" if isinstance(run[name], float) else run[name] for run in (cold, warm)))
        for name in names
    ]
    print_table(("", "cold", "warm"), rows)
    write_json(options.json, {"cold": cold, "warm": warm})


if __name__ == "__main__":
    main()
