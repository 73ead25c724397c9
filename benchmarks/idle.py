"""How much of the time of training steps the device has nothing to do, from the trace of a run.

    python benchmarks/idle.py [WORKDIR] [--longest=5] [--json=FILE]

WORKDIR is of a run with `--config.training.profile=10:20`; its newest trace is read. Without one, `configs/scenes.py` takes 30
steps in a folder of its own first. Prints the share of the time during which nothing runs on the device, the time of a step,
and the longest gaps, with what the host did meanwhile. On GPU and TPU the device is busy while a kernel or a program is on its
own record; on CPU, while any thread is inside of an XLA program. Of several local devices, it is the time when none is busy.
"""

import argparse
import dataclasses
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from jax.profiler import ProfileData
from timing import describe_machine, print_table, write_json

ROOT = Path(__file__).parents[1]
Interval = tuple[float, float]  # start and end, ns
STEP = "train"  # as pyrseg_jax/training/profile.py marks them
# On the record of an accelerator, the first of these that there is: kernels and copies by stream on a GPU, programs on a TPU.
DEVICE_LINES = ("Stream", "XLA Modules")
# On the host's, where the CPU is the device.
CPU_EVENTS = ("ThunkExecutor::Execute",)


@dataclasses.dataclass(frozen=True)
class Trace:
    """What a trace says.

    Attributes:
      starts_ns: when each step was called, in order.
      busy: when the device was executing.
      host: (start, end, what) on the thread that takes the steps; calls inside of others come with them.
    """

    starts_ns: list[float]
    busy: list[Interval]
    host: list[tuple[float, float, str]]


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the union of intervals as disjoint ones, in order; empty intervals are none."""
    merged: list[Interval] = []
    for start, end in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def find_gaps(intervals: Iterable[Interval], start: float, end: float) -> list[Interval]:
    """Return what no interval covers between start and end, in order."""
    gaps, free_from = [], start
    for busy_from, busy_to in merge(intervals):
        if free_from < min(busy_from, end):
            gaps.append((free_from, min(busy_from, end)))
        free_from = max(free_from, busy_to)
    return gaps + ([(free_from, end)] if free_from < end else [])


def read_trace(file: Path) -> Trace:
    """Read a `.xplane.pb`, which unlike the `.trace.json.gz` beside it holds every event."""
    starts, on_device, on_cpu, host = [], [], [], []
    for plane in ProfileData.from_file(str(file)).planes:
        lines = list(plane.lines)
        if plane.name.startswith("/device:"):
            kind = next((kind for kind in DEVICE_LINES if any(line.name.startswith(kind) for line in lines)), None)
            chosen = [line for line in lines if kind is not None and line.name.startswith(kind)]
            on_device += [event[:2] for line in chosen for event in _events(line)]
            continue
        for line in lines:
            events = _events(line)
            on_cpu += [event[:2] for event in events if event[2].startswith(CPU_EVENTS)]
            found = [event[0] for event in events if event[2] == STEP]
            if found:
                starts, host = sorted(found), events
    return Trace(starts, on_device or on_cpu, host)


def _events(line) -> list[tuple[float, float, str]]:
    return [(event.start_ns, event.start_ns + event.duration_ns, event.name) for event in line.events]


def find_trace(workdir: Path) -> Path:
    """Find a run's newest trace; ends the program if there is none."""
    files = sorted((workdir / "profile").rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    if not files:
        sys.exit(f"{workdir} holds no trace: train with --config.training.profile=10:20")
    return files[-1]


def what_ran(host: Sequence[tuple[float, float, str]], gap: Interval) -> str:
    """Name the innermost call that took at least half of a gap."""
    start, end = gap
    covering = [(to - since, what) for since, to, what in host if 2 * (min(to, end) - max(since, start)) >= end - start]
    return min(covering)[1] if covering else "(nothing that the trace names)"


def measure(trace: Trace, num_longest: int) -> dict:
    """Sum up a trace, from the second step's call to the last one's.

    The first step is left out: the trace was begun when the device had nothing left to do. Ends the program if there are
    fewer than three, or if the trace knows of nothing that ran on the device.
    """
    if len(trace.starts_ns) < 3 or not trace.busy:
        sys.exit(
            f"{len(trace.starts_ns)} steps and {len(trace.busy)} programs in the trace: at least three steps are needed"
        )
    start, end = trace.starts_ns[1], trace.starts_ns[-1]
    gaps = find_gaps(trace.busy, start, end)
    longest = sorted(gaps, key=lambda gap: gap[0] - gap[1])[:num_longest]
    step_ms = [(b - a) / 1e6 for a, b in zip(trace.starts_ns[1:-1], trace.starts_ns[2:], strict=True)]
    return {
        "idle_share": sum(b - a for a, b in gaps) / (end - start),
        "num_steps": len(step_ms),
        "step_ms": step_ms,
        "gaps": len(gaps),
        "longest": [
            {"after_ms": (a - start) / 1e6, "ms": (b - a) / 1e6, "host": what_ran(trace.host, (a, b))}
            for a, b in longest
        ],
    }


def train(workdir: Path) -> None:
    """Take 30 steps of `configs/scenes.py`, with neither evaluation nor checkpoint among those of the trace."""
    keys = {
        "training.steps": 30,
        "training.profile": "10:20",
        "evaluation.num_pictures": 0,
        "evaluation.analysis": False,
    }
    command = [sys.executable, "-m", "pyrseg_jax.main", "--config=configs/scenes.py", f"--workdir={workdir}"]
    command += [f"--config.{name}={value}" for name, value in keys.items()]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)  # its scores are of no interest
    if done.returncode:
        sys.exit("the run failed")


def main() -> None:
    """Read the trace of the command line's run, or of one of its own, and print what it says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workdir", nargs="?", type=Path)
    parser.add_argument("--longest", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        workdir = options.workdir or Path(place) / "run"
        if options.workdir is None:
            train(workdir)
        found = measure(read_trace(find_trace(workdir)), options.longest)
    print(f"{found['num_steps']} steps; {describe_machine()}\n")
    low, middle, high = min(found["step_ms"]), statistics.median(found["step_ms"]), max(found["step_ms"])
    rows = [
        ("time without work on the device", f"{100 * found['idle_share']:.2f} %"),
        ("gaps", found["gaps"]),
        ("step, median (min … max)", f"{middle:.1f} ({low:.1f} … {high:.1f}) ms"),
    ]
    print_table(("", "found"), rows)
    print()
    rows = [(f"{gap['after_ms']:.2f}", f"{gap['ms']:.3f}", gap["host"]) for gap in found["longest"]]
    print_table(("gap after, ms", "length, ms", "the host meanwhile"), rows)
    write_json(options.json, found)


if __name__ == "__main__":
    main()
