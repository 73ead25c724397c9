"""Kill a small run again and again, and compare its end with that of an undisturbed run.

    python benchmarks/kills.py --kills=20 [--seed=0] [--signal=KILL|TERM]

The signal comes, in turn, at any time, during compilation, while a checkpoint is being written, and during an evaluation; the
exact time is drawn at random. At the end, every array of the last checkpoint (including the optimizer's) must have the same
bits, `metrics.jsonl` must hold each step once with the same values, and the evaluations must have the same numbers. With TERM,
every interrupted start must exit with status 75. Exits with status 1 if anything differs.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import killed_runs  # noqa: E402


def main() -> int:
    """Run the comparison that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="how often to interrupt the run")
    parser.add_argument("--seed", type=int, default=0, help="of the random times")
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        killed_runs.write_images(root / "data")
        # Long enough that the run does not finish before the last signal.
        settings = {"training.steps": 12 * max(options.kills, 5)}
        first, undisturbed, killed = (
            killed_runs.Run(root / "data", root / name, settings) for name in ("first", "undisturbed", "killed")
        )
        first.finish()  # fills the compilation cache, so that the next one takes as long as a restarted run
        duration_s = undisturbed.finish()
        print(f"undisturbed: {duration_s:.1f} s", flush=True)
        moments = [killed_runs.MOMENTS[i % len(killed_runs.MOMENTS)] for i in range(options.kills)]
        number = getattr(signal, f"SIG{options.signal}")
        hit = killed_runs.disturb(killed, moments, duration_s, number, options.seed)
        found = killed_runs.differences(killed, undisturbed)
        num_arrays = len(killed.arrays())
    num_ended = sum(status != 0 for _, status, _ in hit)
    print(f"SIG{options.signal} ended {num_ended} of {len(hit)} starts; the others had already finished")
    print("\n".join(found) if found else f"{num_arrays} arrays, metrics.jsonl and the evaluations are equal")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
