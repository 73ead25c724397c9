"""CPU time and memory of this process and its descendants (Linux). It needs nothing but Python, so torch_loader.py can use it."""

import os
from pathlib import Path


def cpu_seconds() -> float:
    """Return the CPU seconds that this process and its descendants have used so far."""
    stats = _read_stats()
    ticks = sum(int(stats[number][11]) + int(stats[number][12]) for number in _descendants(stats))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mib() -> list[float]:
    """Return the memory of this process and of each descendant, in MiB; memory that they share is divided among them."""
    return [_proportional_mib(number) for number in _descendants(_read_stats())]


def _read_stats() -> dict[int, list[str]]:
    """Return, for each process of the machine, the fields of its `stat` file that follow its name: state, parent, and so on."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(stat.parent.name)] = stat.read_text().rpartition(")")[2].split()
        except OSError:  # the process has just ended
            continue
    return found


def _descendants(stats: dict[int, list[str]]) -> set[int]:
    """Return this process and its descendants."""
    family = {os.getpid()}
    while more := {number for number, fields in stats.items() if int(fields[1]) in family} - family:
        family |= more
    return family & stats.keys()


def _proportional_mib(number: int) -> float:
    try:
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
    except OSError:  # the process has just ended
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
