"""The scripts in launch/ for one machine and for Slurm: what they run, how they treat exit statuses, and what they stop."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.stage import PROGRAM, ROOT, Stage, wait_for


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck, "pip install -r requirements-dev.txt"
    scripts = sorted([*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch"), *ROOT.glob(".ci/*")])
    assert len(scripts) > 5
    done = subprocess.run([shellcheck, "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# ── environment.sh ──


@pytest.fixture
def find_python(stage):
    """Run find_python where only these Pythons exist, given as name -> version."""

    def run(pythons: dict[str, tuple[int, int]], **variables):
        for name in ("python3.11", "python3.12", "python3.13", "python3", "python", "other"):
            text = "exit 1"
            if name in pythons:
                changed = f"import sys; sys.version_info = {(*pythons[name], 0)}; exec(sys.argv[1])"
                text = f'[ $1 = -c ] || {{ echo "Python of $0"; exit; }}; exec {sys.executable} -c "{changed}" "$2"'
            stage.add(name, text)
        return stage.run("-c", "set -e; source launch/environment.sh; find_python", **{"PYTHON": ""} | variables)

    return run


def test_a_python_that_was_tried_is_preferred(find_python):
    for pythons, expected in [
        ({"python3.12": (3, 12), "python3.13": (3, 13), "python3": (3, 11)}, "python3.12"),
        ({"python3.13": (3, 13), "python3": (3, 14)}, "python3.13"),
        ({"python3": (3, 14), "python": (3, 11)}, "python"),
    ]:
        done = find_python(pythons)
        assert (done.stdout, done.stderr) == (f"{expected}\n", "")


def test_a_newer_python_is_taken_with_a_note_if_there_is_no_other(find_python):
    done = find_python({"python3": (3, 14)})
    assert done.stdout == "python3\n"
    assert "is newer than 3.13, the last version that this project was tried with" in done.stderr


def test_an_old_python_is_refused(find_python):
    done = find_python({"python3": (3, 10), "python": (3, 9)})
    assert done.returncode == 1
    assert "error: found no Python 3.11 or later with venv" in done.stderr


def test_the_python_that_the_user_names_is_taken_or_refused(find_python):
    pythons = {"python3": (3, 12), "other": (3, 15)}
    assert find_python(pythons, PYTHON="other").stdout == "other\n"
    done = find_python(pythons | {"other": (3, 10)}, PYTHON="other")
    assert done.returncode == 1
    assert done.stderr == "error: PYTHON=other is not Python 3.11 or later with venv\n"


@pytest.mark.parametrize("forbidden", ["", "1"])
def test_bytecode_is_installed_where_python_may_not_write_it(stage, forbidden):
    stage.add("python", "")
    script = "set -eu; source launch/environment.sh; install_packages python numpy"
    assert stage.run("-c", script, PYTHONDONTWRITEBYTECODE=forbidden).returncode == 0
    (installed,) = stage.calls("python -m uv pip install")
    assert ("--compile-bytecode" in installed) == bool(forbidden)


# ── test.sh ──


@pytest.fixture
def gate(stage):
    """A project whose tools are stand-ins: each succeeds unless FAILING names it; the smoke test is a stand-in, too."""
    project = stage.folder / "project"
    shutil.copytree(ROOT / "launch", project / "launch")
    shutil.copy(ROOT / "pyproject.toml", project)
    for file in ROOT.glob("requirements*.txt"):
        shutil.copy(file, project)
    (project / "launch" / "wheel_smoke.sh").write_text("wheel_smoke\n")
    (project / ".venv").mkdir()
    (project / ".venv" / "bin").symlink_to(stage.programs)
    for name in ("python", "pip", "ruff", "pyright", "mkdocs"):
        stage.add(name, f'[ "$FAILING" != {name} ]')
    stage.add("wheel_smoke", 'echo "built a wheel"; sleep "$SMOKE_S"; touch "$STAGE/smoked"; [ "$FAILING" != wheel ]')
    stage.env |= {"FAILING": "", "SMOKE_S": "0.2"}
    stage.script = project / "launch" / "test.sh"
    return stage


def test_gate_runs_every_check_and_then_the_tests(gate):
    done = gate.run(gate.script)
    assert done.returncode == 0, done.stderr
    for command in (
        "ruff check .",
        "ruff format --check .",
        "pyright",
        "mkdocs build",
        "wheel_smoke",
        "python -m pytest",
    ):
        assert gate.calls(command), command
    assert gate.calls()[-1] == "python -m pytest"
    (installed,) = gate.calls("python -m uv pip install")
    assert "-r requirements-dev.txt -r requirements-docs.txt --editable ." in installed


def test_the_programs_of_the_gate_keep_their_bytecode(gate):
    gate.add("python", '[ "$2" != pytest ] || [ -z "${PYTHONDONTWRITEBYTECODE:-}" ]')
    assert gate.run(gate.script, "-k", "fuse", PYTHONDONTWRITEBYTECODE="1").returncode == 0


def test_gate_with_arguments_runs_pytest_alone(gate):
    assert gate.run(gate.script, "-k", "fuse").returncode == 0
    assert gate.calls()[-1] == "python -m pytest -k fuse"
    assert not gate.calls("ruff") + gate.calls("pyright") + gate.calls("wheel_smoke")
    assert gate.run(gate.script, "-m", "slow").returncode == 0
    assert len(gate.calls("python -m uv pip install")) == 1  # the requirements have not changed since


@pytest.mark.parametrize("failing", ["-m uv", "--retries 0 uv"])
def test_where_uv_fails_pip_installs(gate, failing):
    gate.add("python", f'case "$*" in *"{failing}"*) echo "no registry"; exit 1; esac')
    done = gate.run(gate.script, "-k", "fuse")
    assert done.returncode == 0, done.stderr
    assert ("note: uv could not install them, so pip tries: no registry" in done.stdout) == (failing == "-m uv")
    assert gate.calls("python -m pip install")[-1].endswith(
        "-r requirements-dev.txt -r requirements-docs.txt --editable ."
    )
    assert gate.calls()[-1] == "python -m pytest -k fuse"


def test_gate_shows_the_log_of_a_failed_smoke_test(gate):
    done = gate.run(gate.script, FAILING="wheel")
    assert done.returncode == 1
    assert "built a wheel" in done.stderr
    assert "error: failed: bash launch/wheel_smoke.sh" in done.stderr
    assert not gate.calls("python -m pytest")


def test_gate_stops_the_smoke_test_when_a_check_fails(gate):
    done = gate.run(gate.script, FAILING="pyright", SMOKE_S="2")
    assert done.returncode == 1
    assert "error: failed: pyright" in done.stderr
    assert not gate.calls("mkdocs") + gate.calls("python -m pytest")
    time.sleep(2.5)
    assert not (gate.folder / "smoked").exists()


# ── local.sh ──


@pytest.fixture
def local(stage):
    # Process I runs the shell text in DO_I.
    process = 'i=${*: -1}; i=${i#*=}; echo "process $i starts"; echo $$ > "$STAGE/pid-$i"; text=DO_$i; eval "${!text}"'
    stage.add("python", f'if [ "$1" = -c ]; then exec {sys.executable} "$@"; fi\n{process}')
    stage.env |= {"JAX_PLATFORMS": "cpu"}
    return stage


def local_command(stage, *arguments):
    return ["launch/local.sh", f"--logs={stage.folder}/logs", "--grace=1", 2, "--config=configs/scenes.py", *arguments]


def test_processes_on_one_machine_get_the_same_coordinator(local):
    done = local.run(*local_command(local, "--workdir=a folder"), DO_0="echo first", DO_1="echo second; exit 0")
    assert done.returncode == 0, done.stderr
    first, second = sorted(local.calls(f"python -m {PROGRAM}"))
    assert "--config=configs/scenes.py --workdir=a folder --coordinator=localhost:" in first
    assert first.endswith("--num_processes=2 --process_id=0")
    assert second == first[:-1] + "1"
    assert done.stdout == "process 0 starts\nfirst\n"  # the output of process 0 is shown
    assert (local.folder / "logs" / "process-1.log").read_text() == "process 1 starts\nsecond\n"


def test_a_process_that_fails_stops_the_others(local):
    start = time.monotonic()
    leaving = 'trap "echo got SIGTERM; exit 75" TERM; for k in $(seq 500); do sleep 0.1; done'
    done = local.run(*local_command(local), DO_0=leaving, DO_1="sleep 0.5; echo no such thing; exit 3")
    assert done.returncode == 3
    assert "error: process 1 ended with status 3: no such thing (all of it: " in done.stderr
    assert "got SIGTERM" in done.stdout
    assert time.monotonic() - start < 20
    pid = int((local.folder / "pid-0").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_ignores_sigterm_is_killed(local):
    deaf = 'trap "" TERM; for i in $(seq 500); do sleep 0.1; done'
    done = local.run(*local_command(local), DO_0="sleep 0.5; exit 4", DO_1=deaf)
    assert done.returncode == 4
    with pytest.raises(ProcessLookupError):
        os.kill(int((local.folder / "pid-1").read_text()), 0)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_processes_so_that_they_save(local, sent):
    saving = (
        'trap "sleep 0.5; echo saved; exit 75" TERM; touch "$STAGE/ready-$i"; for k in $(seq 500); do sleep 0.1; done'
    )
    process = local.start(*local_command(local), DO_0=saving, DO_1=saving)
    wait_for(lambda: len(list(local.folder.glob("ready-*"))) == 2, "two processes")
    process.send_signal(sent)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 75, stderr
    assert "saved" in stdout
    assert "saved" in (local.folder / "logs" / "process-1.log").read_text()


def test_a_failure_counts_more_than_a_preemption(local):
    assert local.run(*local_command(local), DO_0="exit 75", DO_1="sleep 0.5; exit 0").returncode == 75
    assert local.run(*local_command(local), DO_0="exit 75", DO_1="sleep 0.5; exit 1").returncode == 1


def test_devices_are_divided_among_processes(local):
    command = ["launch/local.sh", "--dry-run", 2, "--config=configs/scenes.py", "--workdir=runs/x"]
    first, second = local.run(*command, JAX_PLATFORMS="", CUDA_VISIBLE_DEVICES="4,5,6,7").stdout.splitlines()
    assert first.startswith(f"env CUDA_VISIBLE_DEVICES=4\\,5 JAX_LOCAL_DEVICE_IDS=0\\,1 python -m {PROGRAM} --config=")
    assert second.startswith("env CUDA_VISIBLE_DEVICES=6\\,7 JAX_LOCAL_DEVICE_IDS=0\\,1 ")
    assert second.endswith("--process_id=1 >> runs/x-logs/process-1.log 2>&1")
    done = local.run(*command, JAX_PLATFORMS="", CUDA_VISIBLE_DEVICES="0,1,2")
    assert done.returncode == 1
    assert "error: 3 GPUs cannot be divided evenly among 2 processes" in done.stderr
    # Without GPUs, the processes divide the allowed cores.
    local.add("taskset", 'if [ $1 = -cp ]; then echo "pid $2\'s current affinity list: 0,2-4"; fi')
    first, second = local.run(*command).stdout.splitlines()
    assert first.startswith("taskset -c 0\\,2 python")
    assert second.startswith("taskset -c 3\\,4 python")
    assert not local.calls("python")


def test_local_names_what_it_cannot_run(local):
    for command, message in [
        (["launch/local.sh"], "'': expected the number of processes"),
        (["launch/local.sh", "--config=x", 2], "unknown option --config=x before the number"),
        (["launch/local.sh", 2, "--process_id=1"], "--process_id=1: this script sets it"),
    ]:
        done = local.run(*command)
        assert done.returncode == 1
        assert f"error: {message}" in done.stderr


def test_two_real_processes_find_each_other(stage, tmp_path):
    arguments = ["--mode=validate", f"--workdir={tmp_path / 'run'}"]
    done = stage.run(*local_command(stage, *arguments), JAX_PLATFORMS="cpu")
    assert done.returncode == 1
    assert "error: the mode validate runs in one process, but 2 were started" in done.stdout


# ── slurm.sbatch ──

SLURM = ["launch/slurm.sbatch", "--config=configs/ade20k.py", "--workdir=a folder"]


@pytest.fixture
def slurm(stage):
    stage.add(
        "srun",
        'echo "devices ${JAX_LOCAL_DEVICE_IDS:-}, cores ${SRUN_CPUS_PER_TASK:-}" >> "$STAGE/calls"; exit "$STATUS"',
    )
    stage.add("scontrol", "")
    project = stage.folder / "project"
    (project / "pyrseg_jax").mkdir(parents=True)
    (project / "pyrseg_jax" / "main.py").touch()
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to(sys.executable)
    stage.env |= {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(project), "SLURM_NTASKS_PER_NODE": "8"}
    stage.env |= {"SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "12"}
    return stage


@pytest.mark.parametrize(("status", "is_requeued"), [(0, False), (1, False), (75, True), (137, False)])
def test_slurm_requeues_a_job_that_has_saved(slurm, status, is_requeued):
    done = slurm.run(*SLURM, STATUS=str(status))
    assert done.returncode == status, done.stderr
    (started,) = slurm.calls("srun")
    assert started.endswith(f"python -m {PROGRAM} --config=configs/ade20k.py --workdir=a folder")
    assert slurm.calls("devices") == ["devices , cores 12"]  # jax assigns the GPUs to the tasks
    assert slurm.calls("scontrol") == (["scontrol requeue 7"] if is_requeued else [])


def test_slurm_stops_requeueing_at_the_limit(slurm):
    done = slurm.run(*SLURM, STATUS="75", SLURM_RESTART_COUNT="3", MAX_REQUEUES="3")
    assert done.returncode == 1
    assert "already queued again 3 times" in done.stderr
    assert not slurm.calls("scontrol")


def test_a_single_task_uses_all_gpus_of_its_node(slurm):
    slurm.run(*SLURM, STATUS="0", SLURM_NTASKS_PER_NODE="1", SLURM_GPUS_ON_NODE="4")
    assert slurm.calls("devices") == ["devices 0,1,2,3, cores 12"]


def test_slurm_dry_run_starts_nothing(slurm):
    for name in ("SLURM_JOB_ID", "SLURM_SUBMIT_DIR", "SLURM_NTASKS_PER_NODE"):
        del slurm.env[name]
    done = slurm.run(SLURM[0], "--dry-run", *SLURM[1:])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("sbatch launch/slurm.sbatch --config=configs/ade20k.py --workdir=a\\ folder")
    assert lines[1].startswith("srun --kill-on-bad-exit=0 --wait=120 python -m pyrseg_jax.main --config")
    assert lines[3].startswith("scontrol requeue JOB")
    assert not slurm.calls()
    done = slurm.run(*SLURM)
    assert done.returncode == 1
    assert "error: this is not a Slurm job: use sbatch launch/slurm.sbatch" in done.stderr
