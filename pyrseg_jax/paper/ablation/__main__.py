"""`python -m pyrseg_jax.paper.ablation FOLDER`: write the tables and the plot of an ablation.

FOLDER holds one run per row or method and seed, named ROW-SEED or METHOD-SEED, as `launch/ablation.sh` leaves them. The results
are written into it: `ablation.md`, `ablation.json`, `ablation.png` and `ablation.pdf`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.paper.ablation.results import read_results
from pyrseg_jax.paper.ablation.table import format_tables
from pyrseg_jax.paper.ablation.write import write_ablation


def main(arguments: Sequence[str]) -> int:
    """Print the tables of the folder that the command line names, and write the results into it."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m pyrseg_jax.paper.ablation FOLDER", file=sys.stderr)
        return 1
    folder = Path(arguments[0])
    try:
        results = read_results(folder)
        print(format_tables(results), flush=True)
        write_ablation(folder, results)
    except (UserError, OSError) as error:
        print(f"error: {escaped(str(error))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
