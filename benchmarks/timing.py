"""Shared by the benchmarks: timing several functions in turn, describing the machine, and printing tables."""

import datetime
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

Run = Callable[[], object]


def in_turn(runs: Mapping[str, Run], rounds: int, pause_s: float = 0.0) -> dict[str, float]:
    """Time several functions in turn, so that a drift of the machine's speed affects them alike.

    Args:
      runs: each returns when its work is done. The first round warms up and is not timed.
      rounds: how often each is timed.
      pause_s: seconds to wait before each, so that the threads of the previous one, which wait busily, have gone to sleep.

    Returns:
      The median seconds of each.
    """
    return {name: statistics.median(found) for name, found in times_in_turn(runs, rounds, pause_s).items()}


def times_in_turn(runs: Mapping[str, Run], rounds: int, pause_s: float = 0.0) -> dict[str, list[float]]:
    """Time several functions as `in_turn` does, and return the seconds of every round."""
    times = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            time.sleep(pause_s)
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return times


def ready(function: Callable, *arguments) -> Run:
    """Return a function that calls a jitted function and waits for its result."""
    return lambda: jax.block_until_ready(function(*arguments))


def describe_machine(**versions: str) -> str:
    """Describe the machine, the versions and the date in one line that belongs beside the figures."""
    device = jax.devices()[0]
    kind = f"{_processor()}, {os.cpu_count()} cores" if device.platform == "cpu" else device.device_kind
    known = {"Python": platform.python_version(), "jax": jax.__version__} | versions
    return f"{kind}, {', '.join(f'{name} {version}' for name, version in known.items())}, {datetime.date.today()}"


def _processor() -> str:
    """Return the processor's name as Linux reports it, or else its architecture."""
    known = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", known.read_text(), re.MULTILINE) if known.exists() else None
    return found[1] if found else platform.machine()


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table as Markdown."""
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def write_json(path: Path | None, found: object) -> None:
    """Write the measurements and the description of the machine to a file, if one is given."""
    if path is not None:
        path.write_text(json.dumps({"machine": describe_machine(), "measured": found}, indent=1) + "\n")
