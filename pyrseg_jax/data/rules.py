"""The version of the rules that decide which files are good: a verdict of other rules is not believed."""

import functools
import hashlib
from pathlib import Path

import cv2
import numpy as np
import PIL

# The version that prepared data sets carry. Raise it if a file that was accepted may now be refused or read differently: such sets
# are then prepared, or at least checked, again.
RULES = 2


@functools.cache
def describe_rules() -> str:
    """Describe the rules in a text that changes with the code that reads files, and with the libraries that decode them.

    Verdicts are cheap compared with what a wrong one costs, so any change of the code counts.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return f"{RULES} {digest.hexdigest()} pillow {PIL.__version__} opencv {cv2.__version__} numpy {np.__version__}"
