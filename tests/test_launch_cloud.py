"""The scripts in launch/ for Cloud TPU and GKE, with stand-ins for gcloud and kubectl; folders play the hosts."""

import subprocess

import pytest
import yaml
from support.stage import PROGRAM, Stage, wait_for


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


# ── tpu_pod.sh ──

POD = ["--name=pod", "--zone=us-west4-a", "--type=v5litepod-8"]
POD_ARGUMENTS = ["--config=configs/ade20k.py", "--workdir=/share/runs/it's"]
GCLOUD = """
case "$*" in
  *" create "*) echo $(($(cat "$STAGE/slices" 2> /dev/null || echo 0) + 1)) > "$STAGE/slices"
    mkdir -p "$STAGE/host0" "$STAGE/host1"; echo ACTIVE > "$STAGE/state" ;;
  *" describe "*) if [ -e "$STAGE/host0/pyrseg_jax/exit_status" ]; then mv "$STAGE/next_state" "$STAGE/state"; fi 2> /dev/null
    cat "$STAGE/state" 2> /dev/null || { echo "ERROR: NOT_FOUND: no pod" >&2; exit 1; } ;;
  *" delete "*) until rm -rf "$STAGE"/host* "$STAGE/state"; do sleep 0.1; done 2> /dev/null ;; # hosts may still be writing
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
    """Two folders that play hosts, and a stand-in for gcloud that creates, loses, and reaches them."""
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


def test_a_preempted_slice_is_requested_again(pod):
    # The first slice is preempted after the run has saved, the second without notice; on the third, the hosts report a crash first.
    (pod.folder / "scenario").write_text(
        "case $slice in 1) sleep 0.5; [ $HOST = 1 ] || echo SUSPENDED > $STAGE/state; exit 75 ;;"
        " 2) sleep 0.5; echo SUSPENDED > $STAGE/state; sleep 1; exit 134 ;;"
        " 3) echo SUSPENDED > $STAGE/next_state; exit 134 ;; 4) echo at last; exit 0 ;; esac"
    )
    done = pod.run(*RUN)
    assert done.returncode == 0, done.stderr
    assert "at last" in done.stdout
    assert len(pod.calls("gcloud compute tpus queued-resources create")) == 4
    assert len(pod.calls("gcloud compute tpus queued-resources delete pod --zone=us-west4-a --force")) == 3


def test_a_run_that_saved_continues_on_the_same_slice_if_it_is_still_there(pod):
    (pod.folder / "scenario").write_text('[ -e "$HOME/before" ] && exit 0; touch "$HOME/before"; exit 75')
    assert pod.run(*RUN).returncode == 0
    assert len(pod.calls("gcloud compute tpus queued-resources create")) == 1


def test_a_run_that_fails_is_not_repeated(pod):
    (pod.folder / "scenario").write_text('[ $HOST = 0 ] || { echo "error: no such key"; exit 1; }; exit 75')
    done = pod.run(*RUN)
    assert done.returncode == 1
    assert "the run failed with status 1" in done.stderr
    assert len(pod.calls("gcloud compute tpus queued-resources create")) == 1


def test_stop_lets_a_run_save_and_run_follows_an_active_run(pod):
    (pod.folder / "scenario").write_text(
        'trap "exit 75" TERM; touch "$HOME/ready"; for i in $(seq 300); do sleep 0.1; done'
    )
    process = pod.start(*RUN)
    try:
        wait_for(lambda: len(list(pod.folder.glob("host*/ready"))) == 2, "two hosts")
        assert pod.run(*pod_command("status")).stdout.split() == ["ACTIVE", "running", "running"]
        followers = "gcloud compute tpus tpu-vm ssh pod --zone=us-west4-a --worker=0"
        wait_for(lambda: len(pod.calls(followers)) == 1, "first follower")
        process.terminate()  # training continues without the script
        process.wait()
        process = pod.start(*RUN)
        wait_for(lambda: len(pod.calls(followers)) == 2, "second follower")
        assert pod.run(*pod_command("stop")).returncode == 0
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 75, stderr
        assert pod.run(*pod_command("status")).stdout.split() == ["ACTIVE", "stopped", "stopped"]
        assert len(pod.calls("gcloud compute tpus tpu-vm scp")) == 1  # nothing was installed while the run was active
    finally:
        process.terminate()
        for pid in pod.folder.glob("host*/pyrseg_jax/pid"):
            subprocess.run(["kill", pid.read_text().strip()], stderr=subprocess.DEVNULL)


def test_dry_run_of_a_slice_prints_every_command_and_starts_nothing(pod):
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
        (["launch/tpu_pod.sh", "begin"], "unknown command begin: expected create"),
        (["launch/tpu_pod.sh", "logs", "--name=a"], "--zone=ZONE is missing"),
        (["launch/tpu_pod.sh", "create", "--name=a", "--zone=b"], "--type=TYPE is missing"),
        (pod_command("run"), "--workdir=/share/runs/NAME is missing"),
        (pod_command("run", "--spot", arguments=["--workdir=runs/a"]), "a preempted spot slice loses its disks"),
        (pod_command("run", arguments=["--workdir=/share/a"]), "/share needs --share=ADDRESS:/EXPORT"),
        (pod_command("run", "--config=x"), "unknown option --config=x: arguments of pyrseg_jax.main come after --"),
    ],
)
def test_tpu_pod_names_what_it_cannot_run(pod, command, message):
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


def test_gke_fills_in_the_file_that_kubectl_gets(stage):
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
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy requires it
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "8x16",
    }
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", PROGRAM]
    assert container["args"] == GKE_ARGUMENTS
    assert container["resources"]["limits"]["google.com/tpu"] == 4
    assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in container["volumeMounts"]}
    # Status 75 fails the job with a reason whose restarts are not counted; every other failure counts.
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
        ([*GKE, "--topology=16"], "--topology=16: expected numbers of chips, like 4x4"),
        (
            [*GKE, "--topology=3x3", "--", "--workdir=/share/a"],
            "has 9 chips, which is not a multiple of --chips_per_host=4",
        ),
        ([*GKE, "--", "--workdir=runs/a"], "files outside of the share are lost"),
    ],
)
def test_gke_names_what_it_cannot_run(stage, command, message):
    stage.add("kubectl", "")
    done = stage.run(*command)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert message in done.stderr
    assert not stage.calls()
