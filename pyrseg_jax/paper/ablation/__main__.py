"""`python -m pyrseg_jax.paper.ablation FOLDER`: write the tables and the plot of an ablation.

FOLDER holds one run per row and seed, named ROW-SEED, as `launch/ablation.sh` leaves them. The results are written into it:
`ablation.md`, `ablation.json`, `ablation.png` and `ablation.pdf`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from pyrseg_jax.errors import UserError
from pyrseg_jax.paper.ablation.write import write_ablation


def main(arguments: Sequence[str]) -> int:
    """Write the results into the folder that the command line names, and print the tables."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m pyrseg_jax.paper.ablation FOLDER", file=sys.stderr)
        return 1
    try:
        print(write_ablation(Path(arguments[0])))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
