"""Time the launch of a training run up to its second step, first with an empty and then with a filled compilation cache.

    python benchmarks/cold_start.py [--json=FILE] [-- --config=configs/scenes.py --config.model.backbone=hrnet_small …]

Runs `python -m pyrseg_jax.main` twice with the arguments after `--`. For each launch it prints the seconds until the package is
imported, until the training loop starts (data, weights and checkpoint folder are then ready), and until the first and the second
step are done. It also prints how many of these seconds are spent tracing, lowering and compiling, the number of programs, and
how many of them came from the cache. An unmeasured launch before them prepares the data set if necessary.
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
    """Start a run in a temporary workdir, and return its measurements."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, __file__, "--child", place, repr(time.time()), *arguments]
        env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        done = subprocess.run([*command, f"--workdir={place}/run"], cwd=ROOT, env=env, capture_output=True, text=True)
        result = Path(place) / RESULT
        if not result.exists():
            sys.exit(f"the run ended before its second step:\n{done.stderr[-2000:]}")
        return json.loads(result.read_text())


def child(place: Path, start: float, arguments: list[str]) -> None:
    """Train in this process, note the times, and exit after the second step."""
    import jax

    from pyrseg_jax import main
    from pyrseg_jax.training.trainer import Trainer

    found = {"imported": time.time() - start, "programs": 0, "from cache": 0} | dict.fromkeys(DURATIONS.values(), 0.0)

    def add(event, seconds, **_):
        if event in DURATIONS:
            found[DURATIONS[event]] += seconds
            found["programs"] += event.endswith("backend_compile_duration")

    def count(event, **_):
        found["from cache"] += event == "/jax/compilation_cache/cache_hits"

    jax.monitoring.register_event_duration_secs_listener(add)
    jax.monitoring.register_event_listener(count)
    fit = Trainer.fit

    def timed_fit(trainer, state):
        found["training starts"] = time.time() - start
        train_step, times = trainer.train_step, []

        def timed_step(state, batch):
            result = jax.block_until_ready(train_step(state, batch))
            times.append(time.time() - start)
            if len(times) == 2:
                found["first step"], found["second step"] = times
                (place / RESULT).write_text(json.dumps(found))
                os._exit(0)  # nothing after the second step is measured
            return result

        trainer.train_step = timed_step
        return fit(trainer, state)

    Trainer.fit = timed_fit
    main.main(["main", *arguments])


def main() -> None:
    """Launch twice, and print the measurements of both launches."""
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
        return
    from timing import describe_machine, print_table, write_json

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "arguments", nargs="*", default=["--config=configs/scenes.py"], help="arguments of the run, after --"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        # Prepares the data, and brings all files into the operating system's cache.
        launch(options.arguments, Path(cache) / "before")
        cold, warm = (launch(options.arguments, Path(cache) / "measured") for _ in range(2))
    print(f"{' '.join(options.arguments)}; seconds; {describe_machine()}\n")
    names = (
        "imported",
        "training starts",
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
