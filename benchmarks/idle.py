"""Measure how much of the time of training steps the device is idle, from the trace of a run.

    python benchmarks/idle.py [WORKDIR] [--longest=5] [--json=FILE]

WORKDIR is the folder of a run with `--config.training.profile=10:20`; the newest trace in it is read. Without WORKDIR, the script
first trains `configs/scenes.py` for 30 steps in a temporary folder. Prints the share of the time in which nothing runs on the
device, the time of a step, and the longest gaps with what the host did meanwhile. A GPU or TPU counts as busy while its own
record shows a kernel or a program; a CPU, while any thread is inside an XLA program. With several local devices, the time counts
as idle when none of them is busy.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import idle_time  # noqa: E402
from timing import describe_machine, print_table, write_json  # noqa: E402


def train(workdir: Path) -> None:
    """Train `configs/scenes.py` for 30 steps, with neither an evaluation nor a checkpoint among the traced ones."""
    keys = {
        "training.steps": 30,
        "training.profile": "10:20",
        "evaluation.num_pictures": 0,
        "evaluation.analysis": False,
    }
    command = [sys.executable, "-m", "pyrseg_jax.main", "--config=configs/scenes.py", f"--workdir={workdir}"]
    command += [f"--config.{name}={value}" for name, value in keys.items()]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)  # the scores do not matter here
    if done.returncode:
        sys.exit("the run failed")


def main() -> None:
    """Read the trace of the given run, or of one made here, and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workdir", nargs="?", type=Path, help="of a run with a trace; by default, one is made")
    parser.add_argument("--longest", type=int, default=5, help="how many of the longest gaps to print")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        workdir = options.workdir or Path(place) / "run"
        if options.workdir is None:
            train(workdir)
        try:
            found = idle_time.measure(idle_time.read_trace(idle_time.find_trace(workdir)), options.longest)
        except (FileNotFoundError, ValueError) as error:
            sys.exit(str(error))
    print(f"{found['num_steps']} steps; {describe_machine()}\n")
    low, middle, high = min(found["step_ms"]), statistics.median(found["step_ms"]), max(found["step_ms"])
    rows = [
        ("time without work on the device", f"{100 * found['idle_share']:.2f} %"),
        ("gaps", found["gaps"]),
        ("step, median (min … max)", f"{middle:.1f} ({low:.1f} … {high:.1f}) ms"),
    ]
    print_table(("", "measured"), rows)
    print()
    rows = [(f"{gap['after_ms']:.2f}", f"{gap['ms']:.3f}", gap["host"]) for gap in found["longest"]]
    print_table(("gap after, ms", "length, ms", "call on the host"), rows)
    write_json(options.json, found)


if __name__ == "__main__":
    main()
