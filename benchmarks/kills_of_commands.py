"""Kill each command but `train` again and again, at random moments, and look at what is left.

    python benchmarks/kills_of_commands.py [COMMAND …] --kills=20 [--seed=0]

After each SIGKILL, every file of a result must be complete or absent, no other file may have changed, and no process of the command
may be left. Then the same command is given again: it must finish with the same files, byte by byte, and without leftovers. Prints
each trial and a table, and exits with status 1 if anything else happens. `benchmarks/kills.py` does the same to trainings.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import killed_commands  # noqa: E402


def main() -> int:
    """Run the trials that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commands", nargs="*", default=list(killed_commands.COMMANDS), help="by default all")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    rows = []
    with tempfile.TemporaryDirectory() as place:
        setting = killed_commands.Setting(Path(place))
        for name in options.commands:
            print(f"{name}: {setting.measure(name):.1f} s undisturbed", flush=True)
            found = killed_commands.trials(
                setting, name, options.kills, options.seed, lambda line: print(line, flush=True)
            )
            num_hit = sum(trial.status != 0 for trial in found)
            rows.append(
                (name, setting.seconds[name], len(found), num_hit, sum(bool(trial.problems) for trial in found))
            )
    print(f"\n{'command':<10}{'seconds':>8}{'kills':>7}{'while running':>15}{'problems':>10}")
    for name, seconds, num_kills, num_hit, num_bad in rows:
        print(f"{name:<10}{seconds:>8.1f}{num_kills:>7}{num_hit:>15}{num_bad:>10}")
    return 1 if any(row[-1] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
