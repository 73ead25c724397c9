"""The scripts of launch/: what they run, what they make of exit statuses, and that they stop what they started."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROGRAM = "pyrseg_jax.main"


class Stage:
    """A folder of programs that stand in for others; each notes how it was called."""

    def __init__(self, folder: Path):
        self.folder, self.programs = folder, folder / "programs"
        self.programs.mkdir()
        self.env = os.environ | {"PATH": f"{self.programs}:{os.environ['PATH']}", "STAGE": str(folder)}

    def add(self, name: str, text: str) -> None:
        program = self.programs / name
        program.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "$STAGE/calls"\n{text}\n')
        program.chmod(0o755)

    def calls(self, beginning: str = "") -> list[str]:
        noted = self.folder / "calls"
        lines = noted.read_text().splitlines() if noted.exists() else []
        return [line for line in lines if line.startswith(beginning)]

    def start(self, *command, **variables) -> subprocess.Popen:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(["bash", *map(str, command)], cwd=ROOT, env=self.env | variables, **streams)

    def run(self, *command, **variables) -> subprocess.CompletedProcess:
        process = self.start(*command, **variables)
        try:
            stdout, stderr = process.communicate(timeout=120)
        finally:
            process.terminate()
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


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


# ── local.sh ──


@pytest.fixture
def local(stage):
    # Process I does what DO_I says.
    process = 'i=${*: -1}; i=${i#*=}; echo "process $i starts"; echo $$ > "$STAGE/pid-$i"; what=DO_$i; eval "${!what}"'
    stage.add("python", f'if [ "$1" = -c ]; then exec {sys.executable} "$@"; fi\n{process}')
    stage.env |= {"JAX_PLATFORMS": "cpu"}
    return stage


def local_command(stage, *arguments):
    return ["launch/local.sh", f"--logs={stage.folder}/logs", "--grace=1", 2, "--config=configs/scenes.py", *arguments]


def wait_for(condition, what: str) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"no {what} after 30 s")


def test_processes_of_one_machine_are_told_of_each_other(local):
    done = local.run(*local_command(local, "--workdir=a folder"), DO_0="echo first", DO_1="echo second; exit 0")
    assert done.returncode == 0, done.stderr
    first, second = sorted(local.calls(f"python -m {PROGRAM}"))
    assert "--config=configs/scenes.py --workdir=a folder --coordinator=localhost:" in first
    assert first.endswith("--num_processes=2 --process_id=0")
    assert second == first[:-1] + "1"
    assert done.stdout == "process 0 starts\nfirst\n"  # the first is shown
    assert (local.folder / "logs" / "process-1.log").read_text() == "process 1 starts\nsecond\n"


def test_a_process_that_fails_stops_the_others(local):
    start = time.monotonic()
    done = local.run(*local_command(local), DO_0="exec sleep 50", DO_1="sleep 0.5; echo no such thing; exit 3")
    assert done.returncode == 3
    assert "error: process 1 ended with status 3: no such thing (all of it: " in done.stderr
    assert time.monotonic() - start < 20
    pid = int((local.folder / "pid-0").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_does_not_react_is_killed(local):
    deaf = 'trap "" TERM; for i in $(seq 500); do sleep 0.1; done'
    done = local.run(*local_command(local), DO_0="sleep 0.5; exit 4", DO_1=deaf)
    assert done.returncode == 4
    with pytest.raises(ProcessLookupError):
        os.kill(int((local.folder / "pid-1").read_text()), 0)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_all_processes_save(local, sent):
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
    # No GPUs: cores, of those that are allowed.
    local.add("taskset", 'if [ $1 = -cp ]; then echo "pid $2\'s current affinity list: 0,2-4"; fi')
    first, second = local.run(*command).stdout.splitlines()
    assert first.startswith("taskset -c 0\\,2 python")
    assert second.startswith("taskset -c 3\\,4 python")
    assert not local.calls("python")


def test_what_local_cannot_run_is_said(local):
    for command, message in [
        (["launch/local.sh"], "'': expected the number of processes"),
        (["launch/local.sh", "--config=x", 2], "--config=x is not known before the number"),
        (["launch/local.sh", 2, "--process_id=1"], "--process_id=1: this script sets it"),
    ]:
        done = local.run(*command)
        assert done.returncode == 1
        assert f"error: {message}" in done.stderr


def test_two_true_processes_meet(stage, tmp_path):
    arguments = ["--mode=validate", f"--workdir={tmp_path / 'run'}"]
    done = stage.run(*local_command(stage, *arguments), JAX_PLATFORMS="cpu")
    assert done.returncode == 1
    assert "error: --mode=validate is work for one process, and there are 2" in done.stdout


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
def test_slurm_queues_a_job_again_that_has_saved(slurm, status, is_requeued):
    done = slurm.run(*SLURM, STATUS=str(status))
    assert done.returncode == status, done.stderr
    (started,) = slurm.calls("srun")
    assert started.endswith(f"python -m {PROGRAM} --config=configs/ade20k.py --workdir=a folder")
    assert slurm.calls("devices") == ["devices , cores 12"]  # jax gives each task its GPU
    assert slurm.calls("scontrol") == (["scontrol requeue 7"] if is_requeued else [])


def test_slurm_does_not_queue_for_ever(slurm):
    done = slurm.run(*SLURM, STATUS="75", SLURM_RESTART_COUNT="3", MAX_REQUEUES="3")
    assert done.returncode == 1
    assert "queued again 3 times already" in done.stderr
    assert not slurm.calls("scontrol")


def test_one_task_of_a_node_takes_all_its_gpus(slurm):
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
    assert "error: there is no job: sbatch launch/slurm.sbatch" in done.stderr


# ── tpu_pod.sh ──

POD = ["--name=pod", "--zone=us-west4-a", "--type=v5litepod-8"]
POD_ARGUMENTS = ["--config=configs/ade20k.py", "--workdir=/share/runs/it's"]
GCLOUD = """
case "$*" in
  *" create "*) echo $(($(cat "$STAGE/slices" 2> /dev/null || echo 0) + 1)) > "$STAGE/slices"
    mkdir -p "$STAGE/host0" "$STAGE/host1"; echo ACTIVE > "$STAGE/state" ;;
  *" describe "*) cat "$STAGE/state" 2> /dev/null || { echo "ERROR: NOT_FOUND: no pod" >&2; exit 1; } ;;
  *" delete "*) rm -rf "$STAGE"/host* "$STAGE/state" ;;
  *" scp "*) [ "$(cat "$STAGE/state")" = ACTIVE ] || exit 1; for h in 0 1; do cp "$5" "$STAGE/host$h/${6#*:}"; done ;;
  *" ssh "*)
    [ "$(cat "$STAGE/state")" = ACTIVE ] || exit 255
    for argument in "$@"; do
      case "$argument" in
        --worker=all) hosts="0 1" ;;
        --worker=*) hosts=${argument#*=} ;;
        --command=*) text=${argument#*=} ;;
      esac
    done
    for h in $hosts; do HOME="$STAGE/host$h" HOST=$h bash -c "$text" || exit; done ;;
esac
"""
HOST_PYTHON = f"""#!/usr/bin/env bash
[ "$2" = {PROGRAM} ] || exit 0
printf '%s\\n' "$@" > "$HOME/arguments"; slice=$(cat "$STAGE/slices")
source "$STAGE/scenario"
"""


@pytest.fixture
def pod(stage):
    """Two hosts that are folders, and a gcloud that makes, loses and reaches them."""
    stage.add("gcloud", GCLOUD)
    stage.add("sudo", "")
    stage.add("mountpoint", "exit 1")
    stage.add("python3", 'if [ "$3" = venv ]; then mkdir -p .venv/bin; cp "$STAGE/machine_python" .venv/bin/python; fi')
    (stage.folder / "machine_python").write_text(HOST_PYTHON)
    (stage.folder / "machine_python").chmod(0o755)
    return stage


def pod_command(action, *options, arguments=()):
    return ["launch/tpu_pod.sh", action, *POD, "--poll=0", *options, *(["--", *arguments] if arguments else [])]


RUN = pod_command("run", "--spot", "--share=10.0.0.2:/disk", arguments=POD_ARGUMENTS)


def test_a_run_on_a_slice_from_nothing_to_its_exit_status(pod):
    (pod.folder / "scenario").write_text('echo "host $HOST says"; sleep 0.5; exit 0')
    done = pod.run(*RUN)
    assert done.returncode == 0, done.stderr
    assert "host 0 says" in done.stdout
    (created,) = pod.calls("gcloud compute tpus queued-resources create")
    expected = "pod --node-id=pod --zone=us-west4-a --accelerator-type=v5litepod-8 --runtime-version=v2-alpha-tpuv5-lite --spot"
    assert created.endswith(expected)
    for host in ("host0", "host1"):
        assert (pod.folder / host / "arguments").read_text().splitlines() == ["-m", PROGRAM, *POD_ARGUMENTS]
        assert (pod.folder / host / "pyrseg_jax" / "pyrseg_jax" / "main.py").is_file()
    assert len(pod.calls("sudo mount -t nfs -o rw,hard 10.0.0.2:/disk /share")) == 2
    assert not pod.calls("gcloud compute tpus queued-resources delete")


def test_a_slice_that_is_taken_away_is_asked_for_anew(pod):
    # The first is taken after the run has saved, the second without a word: each host is just gone.
    (pod.folder / "scenario").write_text(
        "case $slice in 1) sleep 0.5; [ $HOST = 1 ] || echo SUSPENDED > $STAGE/state; exit 75 ;;"
        " 2) sleep 0.5; echo SUSPENDED > $STAGE/state; sleep 1; exit 134 ;; 3) echo at last; exit 0 ;; esac"
    )
    done = pod.run(*RUN)
    assert done.returncode == 0, done.stderr
    assert "at last" in done.stdout
    assert len(pod.calls("gcloud compute tpus queued-resources create")) == 3
    assert len(pod.calls("gcloud compute tpus queued-resources delete pod --zone=us-west4-a --force")) == 2


def test_a_run_that_saved_on_a_slice_that_stays_goes_on_there(pod):
    (pod.folder / "scenario").write_text('[ -e "$HOME/before" ] && exit 0; touch "$HOME/before"; exit 75')
    assert pod.run(*RUN).returncode == 0
    assert len(pod.calls("gcloud compute tpus queued-resources create")) == 1


def test_a_run_that_fails_is_not_repeated(pod):
    (pod.folder / "scenario").write_text('[ $HOST = 0 ] || { echo "error: no such key"; exit 1; }; exit 75')
    done = pod.run(*RUN)
    assert done.returncode == 1
    assert "the run failed with status 1" in done.stderr
    assert len(pod.calls("gcloud compute tpus queued-resources create")) == 1


def test_stop_lets_a_run_save_and_run_goes_on_following_what_runs(pod):
    (pod.folder / "scenario").write_text(
        'trap "exit 75" TERM; touch "$HOME/ready"; for i in $(seq 300); do sleep 0.1; done'
    )
    process = pod.start(*RUN)
    try:
        wait_for(lambda: len(list(pod.folder.glob("host*/ready"))) == 2, "two hosts")
        assert pod.run(*pod_command("status")).stdout.split() == ["ACTIVE", "running", "running"]
        process.terminate()  # training goes on without the script
        process.wait()
        process = pod.start(*RUN)
        wait_for(
            lambda: len(pod.calls("gcloud compute tpus tpu-vm ssh pod --zone=us-west4-a --worker=0")) == 2,
            "second follower",
        )
        assert pod.run(*pod_command("stop")).returncode == 0
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 75, stderr
        assert pod.run(*pod_command("status")).stdout.split() == ["ACTIVE", "stopped", "stopped"]
        assert len(pod.calls("gcloud compute tpus tpu-vm scp")) == 1  # nothing was installed under a run
    finally:
        process.terminate()
        for pid in pod.folder.glob("host*/pyrseg_jax/pid"):
            subprocess.run(["kill", pid.read_text().strip()], stderr=subprocess.DEVNULL)


def test_the_dry_run_of_a_slice_prints_all_and_starts_nothing(pod):
    (pod.folder / "scenario").write_text("")
    done = pod.run(*RUN[:2], "--dry-run", *RUN[2:])
    assert done.returncode == 0, done.stderr
    for command in ("queued-resources create pod", "queued-resources describe pod", "tpu-vm scp ", "tpu-vm ssh pod"):
        assert f"gcloud compute tpus {command}" in done.stdout
    assert f"python -m {PROGRAM} --config=configs/ade20k.py" in done.stdout
    for action, command in [
        ("delete", "queued-resources delete pod"),
        ("stop", "tpu-vm ssh pod"),
        ("logs", "tpu-vm ssh"),
    ]:
        assert pod.run(*pod_command(action, "--dry-run")).stdout.startswith(f"gcloud compute tpus {command}")
    assert not pod.calls()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["launch/tpu_pod.sh", "begin"], "begin is not known; the commands are create"),
        (["launch/tpu_pod.sh", "logs", "--name=a"], "--zone=ZONE is missing"),
        (["launch/tpu_pod.sh", "create", "--name=a", "--zone=b"], "--type=TYPE is missing"),
        (pod_command("run"), "--workdir=/share/runs/NAME is missing"),
        (pod_command("run", "--spot", arguments=["--workdir=runs/a"]), "a spot slice takes its disks along"),
        (pod_command("run", arguments=["--workdir=/share/a"]), "--share=ADDRESS:/EXPORT is missing"),
        (pod_command("run", "--config=x"), "--config=x is not known; what is for pyrseg_jax.main comes after --"),
    ],
)
def test_what_cannot_run_on_a_slice_is_said(pod, command, message):
    done = pod.run(*command)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert message in done.stderr
    assert not pod.calls()


# ── gke.sh ──

GKE = [
    *("launch/gke.sh", "run", "--name=ade", "--image=registry/pyrseg:1", "--accelerator=tpu-v5-lite-podslice"),
    *("--topology=8x16", "--claim=disk"),
]
GKE_ARGUMENTS = ["--config=configs/ade20k.py", "--workdir=/share/runs/ade", r"""--config.data.name=a "b" & |c\d"""]


def test_gke_fills_in_what_kubectl_gets(stage):
    stage.add("kubectl", 'cat > "$STAGE/jobset.yaml"')
    done = stage.run(*GKE, "--", *GKE_ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert stage.calls() == ["kubectl create -f -"]
    text = (stage.folder / "jobset.yaml").read_text()
    assert "${" not in text
    jobset = yaml.safe_load(text)
    assert jobset["metadata"]["name"] == "ade"
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (32, 32, 0)
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy needs
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "8x16",
    }
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", PROGRAM]
    assert container["args"] == GKE_ARGUMENTS
    assert container["resources"]["limits"]["google.com/tpu"] == 4
    assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in container["volumeMounts"]}
    # 75 fails the job for a reason whose restarts are not counted; the rest counts.
    rules = job["podFailurePolicy"]["rules"]
    assert rules[0]["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [75]}
    assert {rule["action"] for rule in rules} == {"FailJob"}
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 3
    assert policy["rules"][0]["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert policy["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_gke_dry_run_prints_the_file_and_starts_nothing(stage):
    stage.add("kubectl", "")
    done = stage.run(*GKE, "--spot", "--dry-run", "--", *GKE_ARGUMENTS)
    assert done.returncode == 0, done.stderr
    text, last = done.stdout.rstrip().rsplit("\n", 1)
    job = yaml.safe_load(text)["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert last == "kubectl create -f -"
    for action, command in [("logs", "kubectl logs --follow"), ("status", "kubectl get"), ("delete", "kubectl delete")]:
        assert stage.run("launch/gke.sh", action, "--name=ade", "--dry-run").stdout.startswith(command)
    assert not stage.calls()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["launch/gke.sh", "run", "--name=Ade"], "--name=Ade: expected lower-case"),
        (GKE[:-1], "--claim=… is missing"),
        ([*GKE, "--topology=16"], "--topology=16: expected chips as in 4x4"),
        (
            [*GKE, "--topology=3x3", "--", "--workdir=/share/a"],
            "has 9 chips, which is no multiple of --chips_per_host=4",
        ),
        ([*GKE, "--", "--workdir=runs/a"], "what is not on the share is lost"),
    ],
)
def test_what_gke_cannot_run_is_said(stage, command, message):
    stage.add("kubectl", "")
    done = stage.run(*command)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert message in done.stderr
    assert not stage.calls()
