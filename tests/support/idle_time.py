"""Reads a profiler trace of training steps and measures how long the device had nothing to do."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from jax.profiler import ProfileData

Interval = tuple[float, float]  # start and end, ns
STEP = "train"  # the name that pyrseg_jax/training/profile.py gives each step in a trace
# The lines of an accelerator that show it busy; the first kind that a trace has is read. A GPU has a line per stream with its
# kernels and copies, a TPU has one with its programs.
DEVICE_LINES = ("Stream", "XLA Modules")
# On CPU, the host's threads are the device: these are the events in which they run an XLA program.
CPU_EVENTS = ("ThunkExecutor::Execute",)


@dataclasses.dataclass(frozen=True)
class Trace:
    """What a trace tells about the training steps.

    Attributes:
      starts_ns: when the host called each step, in order.
      busy: intervals in which the device was executing; of several devices, in which any was.
      host: (start, end, name) of every call on the thread that takes the steps, nested calls included.
    """

    starts_ns: list[float]
    busy: list[Interval]
    host: list[tuple[float, float, str]]


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the union of intervals as disjoint intervals in order, without empty ones."""
    merged: list[Interval] = []
    for start, end in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def find_gaps(intervals: Iterable[Interval], start: float, end: float) -> list[Interval]:
    """Return the parts of [start, end] that no interval covers, in order."""
    gaps, free_from = [], start
    for busy_from, busy_to in merge(intervals):
        if free_from < min(busy_from, end):
            gaps.append((free_from, min(busy_from, end)))
        free_from = max(free_from, busy_to)
    return gaps + ([(free_from, end)] if free_from < end else [])


def find_trace(workdir: Path) -> Path:
    """Return the newest trace in the folder of a run.

    Raises:
      FileNotFoundError: if the run recorded none.
    """
    files = sorted((workdir / "profile").rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f"{workdir} holds no trace: train with --config.training.profile=10:20")
    return files[-1]


def read_trace(file: Path) -> Trace:
    """Read a `.xplane.pb` file. The `.trace.json.gz` beside it leaves out events when there are many."""
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


def call_during(host: Sequence[tuple[float, float, str]], gap: Interval) -> str:
    """Name the innermost call of the host that covers at least half of a gap."""
    start, end = gap
    covering = [(to - since, name) for since, to, name in host if 2 * (min(to, end) - max(since, start)) >= end - start]
    return min(covering)[1] if covering else "(no call that the trace names)"


def measure(trace: Trace, num_longest: int) -> dict:
    """Summarize a trace from the call of the second step to the call of the last one.

    The first step is left out, because the device had no work left when the trace began.

    Args:
      trace: at least three steps.
      num_longest: how many of the longest gaps to describe.

    Returns:
      `idle_share`, `num_steps`, `step_ms` of each step, the number of `gaps`, and the `longest` gaps: `after_ms` since the
      second step's call, their length `ms`, and what the `host` did.

    Raises:
      ValueError: if there are fewer than three steps, or nothing ran on the device.
    """
    if len(trace.starts_ns) < 3 or not trace.busy:
        raise ValueError(
            f"the trace holds {len(trace.starts_ns)} steps and {len(trace.busy)} programs: at least three steps are needed"
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
            {"after_ms": (a - start) / 1e6, "ms": (b - a) / 1e6, "host": call_during(trace.host, (a, b))}
            for a, b in longest
        ],
    }
