"""A run computes the same numbers in any number of processes, on any number of devices."""

import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from support.command_line import TINY
from support.data_sets import CLASSES, write_folder

from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import experiment
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import Workdir

ROOT = Path(__file__).parents[1]
# With the procedure "gt", targets do not depend on how an untrained probability of about ½ is rounded.
FIVE_STEPS = [
    *TINY,
    "--config.data.crop_px=128",
    "--config.model.context=none",  # so that each start traces and compiles less
    "--config.model.strides=(8,4)",
    "--config.training.procedure=gt",
    "--config.training.steps=5",
    "--config.training.log_every=1",
    "--config.training.evaluate_every=5",
    "--config.training.save_every=5",
    # With ten times this rate, a rounding in step 1 grows to 2e-4 in five steps, in one process with other compiler flags, too.
    "--config.training.learning_rate=0.0002",
    "--config.data.workers=0",
    "--config.evaluation.num_pictures=0",
    "--config.evaluation.analysis=false",
]
LAYOUTS = {"one": (1, 1), "two": (2, 2), "four": (4, 1)}  # processes, devices of each


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
    """Wait for all processes; return the exit status, stdout and stderr of each."""
    written = [process.communicate(timeout=600) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, written, strict=True)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    # Images of two sizes; their numbers (7 and 5) divide by neither the batch size nor the number of processes.
    place = tmp_path_factory.mktemp("data")
    return write_folder(place / "data", {"training": 7, "validation": 5}, size=(100, 140))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Return a function: name of a layout → workdir and outputs of five steps in it. Each layout runs once."""
    done = {}

    def run(name):
        if name not in done:
            workdir = tmp_path_factory.mktemp(name) / "run"
            arguments = [*FIVE_STEPS, f"--config.data.root={data}", f"--workdir={workdir}"]
            done[name] = workdir, finish(start_all(*LAYOUTS[name], arguments))
            assert {status for status, _, _ in done[name][1]} == {0}, done[name]
        return done[name]

    return run


def losses_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    return [line["loss"] for line in lines]


def evaluation_of(workdir):
    result = json.loads((workdir / "evaluation" / "validation-5.json").read_text())
    return {key: value for key, value in result.items() if key not in ("seconds", "compiled_programs")}


def assert_same_scores(found, expected):
    """Counts are exact. The loss is computed in single precision, whose rounding depends on the number of devices."""
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert found | {"loss": 0} == expected | {"loss": 0}


def state_of(workdir):
    config = Workdir(str(workdir)).read_config()
    model = experiment.make_model(config, len(CLASSES))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.device_get(restore(config, model, Workdir(str(workdir)), sharding, 5))


@pytest.mark.parametrize("layout", ["two", pytest.param("four", marks=pytest.mark.slow)])
def test_any_number_of_processes_computes_the_same_as_one(trained, layout):
    (one, _), (several, outputs) = trained("one"), trained(layout)
    np.testing.assert_allclose(losses_of(several), losses_of(one), atol=1e-5)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, state_of(several).variables["params"], state_of(one).variables["params"])

    # Where two classes are nearly tied, rounding decides; equal weights give equal counts (see the next test).
    def is_close(found, expected):
        return found == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-3, abs=1e-3))

    assert jax.tree.all(jax.tree.map(is_close, evaluation_of(several), evaluation_of(one)))
    # Only the first process prints and logs.
    assert "pixel accuracy" in outputs[0][1]
    assert not any("accuracy" in stdout for _, stdout, _ in outputs[1:])
    assert "loss" in outputs[0][2]
    assert not any("loss" in stderr for _, _, stderr in outputs[1:])


def test_a_run_of_two_processes_continues_in_one_and_is_evaluated_by_three(trained, data, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained("two")[0], workdir)
    arguments = [f"--config.data.root={data}", f"--workdir={workdir}"]
    (result,) = finish(start_all(1, 1, [*FIVE_STEPS, "--config.training.evaluate_every=10", *arguments]))
    assert result[0] == 0, result
    assert "step 5 is already done" in result[2]
    before = evaluation_of(workdir)
    (workdir / "evaluation" / "validation-5.json").unlink()
    results = finish(start_all(3, 1, [*FIVE_STEPS, *arguments, "--mode=evaluate"]))
    assert [status for status, _, _ in results] == [0, 0, 0], results
    assert_same_scores(evaluation_of(workdir), before)


def test_a_mode_for_one_process_is_refused_in_two(trained):
    workdir, _ = trained("one")
    for status, _, stderr in finish(start_all(2, 1, ["--mode=validate", f"--workdir={workdir}"])):
        assert status == 1
        assert "error: the mode validate runs in one process, but 2 were started" in stderr


def test_processes_need_all_three_flags_or_none():
    with pytest.raises(UserError, match="--process_id is missing: --coordinator, --num_processes and --process_id go"):
        processes.start("auto", "localhost:1", 2, None)
    with pytest.raises(UserError, match=r"--process_id=2: expected 0 … 1, for --num_processes=2"):
        processes.start("auto", "localhost:1", 2, 2)


@pytest.mark.parametrize(
    ("environment", "is_cluster"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a"}, False),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a[1-4]"}, True),
        ({"SLURM_NTASKS": "4"}, False),  # inside an allocation, but not started by srun
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a-0,a-1"}, True),
    ],
)
def test_a_cluster_is_recognized_by_its_environment(monkeypatch, environment, is_cluster):
    for name in ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processes, "TPU_DEVICES", ())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.is_cluster() == is_cluster
