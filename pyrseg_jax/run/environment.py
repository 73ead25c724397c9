"""Describe the machine and the software of a run, for `environment.json`."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

from pyrseg_jax.distributed import mesh as mesh_lib

# Packages whose versions are recorded.
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy", "pillow")


def environment() -> dict:
    """Describe this machine and its software: versions, devices, and the commit if the package runs from a checkout."""
    root = Path(__file__).parents[2]
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "devices": mesh_lib.describe_devices(),
        "git_commit": commit,
        "command": sys.argv,
    }
