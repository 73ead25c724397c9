"""Kill a small run again and again, and compare what it ends with to a run that was left alone.

    python benchmarks/kills.py --kills=20 [--seed=0] [--signal=KILL|TERM]

The moments alternate: anywhere, while compiling, while a checkpoint is being written, during an evaluation. Within each kind,
the exact moment is drawn at random. At the end, every array of the last checkpoint, including the optimizer's, must have the
same bits, `metrics.jsonl` must hold each step once with the same values, and the evaluations must hold the same numbers. With
TERM, every killed start must end with the status 75. Exits with status 1 if anything differs.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.kills import MOMENTS, Run, differences, disturb, write_images


def main() -> int:
    """Run the comparison that the command line describes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    given = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_images(root / "data")
        # Long enough that all signals come before the run ends.
        settings = {"training.steps": 12 * max(given.kills, 5)}
        straight, killed = (Run(root / "data", root / name, settings) for name in ("straight", "killed"))
        straight.finish()  # fills the compilation cache
        straight = Run(root / "data", root / "again", settings)
        seconds = straight.finish()
        print(f"undisturbed: {seconds:.1f} s", flush=True)
        moments = [MOMENTS[i % len(MOMENTS)] for i in range(given.kills)]
        hit = disturb(killed, moments, seconds, getattr(signal, f"SIG{given.signal}"), given.seed)
        found = differences(killed, straight)
        num_arrays = len(killed.arrays())
    ended = sum(status != 0 for _, status, _ in hit)
    print(f"{ended} of {len(hit)} starts were ended by SIG{given.signal}, the others had finished before")
    print("\n".join(found) if found else f"{num_arrays} arrays, metrics.jsonl and the evaluations are equal")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
