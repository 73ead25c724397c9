"""One run, on different devices and in different numbers of processes: the same numbers."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import write_folder
from test_main import TINY

from pyrseg_jax import parallel, processes
from pyrseg_jax.errors import UserError
from pyrseg_jax.training.checkpoint import Checkpoints

ROOT = Path(__file__).parents[1]
# Targets must not hang on which side of the threshold an untrained probability of about ½ is rounded to.
FIVE_STEPS = [
    *TINY,
    "--config.data.crop_px=128",
    "--config.training.procedure=gt",
    "--config.training.steps=5",
    "--config.training.log_every=1",
    "--config.training.evaluate_every=5",
    "--config.training.save_every=5",
    "--config.training.learning_rate=0.01",
    "--config.data.workers=0",
    "--config.evaluation.num_pictures=0",
]
# Name → processes, devices of each, further settings.
LAYOUTS = {
    "one": (1, 1, []),
    "four_devices": (1, 4, []),
    "two_processes": (2, 2, []),
    "four_processes": (4, 1, []),
    "rows_split": (1, 4, ["--config.parallel.data=2", "--config.parallel.spatial=2"]),
    "state_split": (2, 2, ["--config.parallel.shard_state=true"]),
}


def start_all(num_processes: int, num_devices: int, arguments: list[str]) -> list[subprocess.Popen]:
    """Start the processes of one run, each with its own virtual devices."""
    flags = re.sub(r"device_count=\d+", f"device_count={num_devices}", os.environ["XLA_FLAGS"])
    env = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pyrseg_jax.main", "--config=configs/scenes.py", *arguments]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []
    for number in range(num_processes):
        joining = [f"--coordinator=localhost:{port}", f"--num_processes={num_processes}", f"--process_id={number}"]
        started.append(
            subprocess.Popen(
                command + (joining if num_processes > 1 else []),
                cwd=ROOT,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def finish(started: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Wait for all, and return the exit status and what each wrote to stdout and stderr."""
    written = [process.communicate(timeout=600) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, written, strict=True)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    # Images of two sizes, and no number of them that divides by anything.
    place = tmp_path_factory.mktemp("data")
    return write_folder(place / "data", {"training": 7, "validation": 5}, size=(100, 140))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Workdir and outputs of five steps in a layout; each is run once."""
    done = {}

    def run(name):
        if name not in done:
            num_processes, num_devices, settings = LAYOUTS[name]
            workdir = tmp_path_factory.mktemp(name) / "run"
            arguments = [*FIVE_STEPS, *settings, f"--config.data.root={data}", f"--workdir={workdir}"]
            done[name] = workdir, finish(start_all(num_processes, num_devices, arguments))
            assert [status for status, _, _ in done[name][1]] == [0] * num_processes, done[name]
        return done[name]

    return run


def losses_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    return [line["loss"] for line in lines]


def evaluation_of(workdir):
    result = json.loads((workdir / "evaluation" / "validation-5.json").read_text())
    return {key: value for key, value in result.items() if key not in ("seconds", "compiled_programs")}


def params_of(workdir):
    return jax.device_get(parallel.restored_params(workdir))


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "one"])
def test_every_layout_computes_what_one_device_does(trained, layout):
    (one, _), (other, _) = trained("one"), trained(layout)
    np.testing.assert_allclose(losses_of(other), losses_of(one), atol=1e-5)
    assert evaluation_of(other) == evaluation_of(one)
