"""`python -m pyrseg_jax` is the same as the `pyrseg` command."""

import sys

from pyrseg_jax.main import entry

if __name__ == "__main__":
    sys.exit(entry())
