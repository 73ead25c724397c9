"""What the benchmarks share: timing in turn, what the machine is, and tables."""

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
    """Return the median seconds of each; they take turns, so that a drift of the machine meets them alike.

    Args:
      runs: each returns when its work is done. A first round, which warms up, does not count.
      rounds: how often each is timed.
      pause_s: before each, so that threads that wait busily for more work of the one before have gone to sleep.
    """
    times = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            time.sleep(pause_s)
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def ready(function: Callable, *arguments) -> Run:
    """Return a run that calls a jitted function and waits for its result."""
    return lambda: jax.block_until_ready(function(*arguments))


def describe_machine(**versions: str) -> str:
    """Say what was measured on, with what, and when: one line to stand beside the figures."""
    device = jax.devices()[0]
    kind = f"{_processor()}, {os.cpu_count()} cores" if device.platform == "cpu" else device.device_kind
    known = {"Python": platform.python_version(), "jax": jax.__version__} | versions
    return f"{kind}, {', '.join(f'{name} {version}' for name, version in known.items())}, {datetime.date.today()}"


def _processor() -> str:
    """Name the processor as Linux does; its architecture alone where there is no telling."""
    known = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", known.read_text(), re.MULTILINE) if known.exists() else None
    return found[1] if found else platform.machine()


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows as Markdown."""
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def write_json(path: Path | None, found: object) -> None:
    """Write what was measured, with the machine, if a file is asked for."""
    if path is not None:
        path.write_text(json.dumps({"machine": describe_machine(), "measured": found}, indent=1) + "\n")
