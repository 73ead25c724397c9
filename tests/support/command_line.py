"""The command line, as a program of its own and inside the process of the test."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from pyrseg_jax import main

ROOT = Path(__file__).parents[2]

TINY = [
    "--config.data.name=folder",
    "--config.data.crop_px=64",
    "--config.model.backbone=hrnet_tiny",
    "--config.model.semantic_width=16",
    "--config.model.key_width=8",
    "--config.model.unity_width=8",
    "--config.training.batch_size=4",
    "--config.training.steps=6",
    "--config.training.log_every=2",
    "--config.training.evaluate_every=3",
    "--config.training.save_every=2",
    "--config.evaluation.batch_size=2",
    "--config.evaluation.num_pictures=1",
    "--config.evaluation.report=False",
]


def run(*arguments, cwd=ROOT, check=None):
    # One device, as on a laptop; the import path as if the user stood in the project.
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=1")
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))  # the second for modules of tests, such as a fake tracker
    env = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": path}
    command = [sys.executable, "-m", "pyrseg_jax.main", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if check is not None:
        assert done.returncode == check, done.stderr
    return done


def call(*arguments) -> subprocess.CompletedProcess:
    """Run a command in this process, without the seconds that a new one takes to start."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        status = main.main(["pyrseg", *map(str, arguments)])
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), errors.getvalue())


def error_of(done) -> str:
    """Return the one line that a failed command may print, after its log lines."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.rstrip().splitlines()[-1] == lines[0]
    return lines[0]
