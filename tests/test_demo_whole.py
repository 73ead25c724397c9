"""`pyrseg demo` from the command to the browser, with a trained network, and its server from start to Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from support import chromium
from support.command_line import ROOT, call
from support.data_sets import CLASSES, draw_pair
from support.runs import tiny_config, write_run

import pyrseg_jax

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from support import demos  # noqa: E402

PLACES = [
    folder / "shared" / "data" / "camvid" / "images" / "validation" for folder in Path(__file__).resolve().parents
]
PHOTOGRAPHS = next((sorted(place.glob("*.jpg")) for place in PLACES if place.is_dir()), [])
FIRST_RESULT_S = 10
MOVE = """(() => { const slider = document.getElementById("tau"); slider.value = state.thresholds.indexOf(0.3);
  slider.dispatchEvent(new Event("input")); })()"""


@pytest.mark.slow
def test_a_trained_network_gives_the_labels_of_python_in_a_browser(tmp_path):
    if chromium.PROGRAM is None or not PHOTOGRAPHS:
        pytest.skip("there is no Chromium on this machine, or no photograph of CamVid")
    package = demos.write_fake_package(tmp_path / "package")
    for name, content in demos.real_runtime().files.items():
        (package / "dist" / name).write_bytes(content)
    photo = PHOTOGRAPHS[20]
    folder = tmp_path / "demo"
    done = call("demo", "camvid-small", f"--output={folder}", f"--input={photo}", f"--runtime={package}")
    assert done.returncode == 0, done.stderr
    result = pyrseg_jax.load("camvid-small")(photo)
    with demos.serving(folder) as url, chromium.Chromium(tmp_path / "profile") as browser:
        start = time.monotonic()
        browser.open(url, 60)
        browser.wait("document.body.dataset.results === '1'", 60)
        seconds = time.monotonic() - start
        print(f"the first result took {seconds:.1f} s")
        height, width, labels = browser.evaluate(
            "[state.shown.height, state.shown.width, Array.from(state.shown.labels)]"
        )
        found = np.array(labels).reshape(height, width)
        assert found.shape == result.labels.shape and (found == result.labels).mean() >= 0.999
        level = np.array(browser.evaluate("Array.from(state.shown.level.data)")).reshape(result.level.shape)
        assert (level == result.level).mean() >= 0.999
        browser.evaluate(MOVE)
        browser.wait("document.body.dataset.results === '2'", 60)
        content = (folder / "model-352x480.onnx").read_bytes()
        labels, *_ = demos.expected(content, result.image, (352, 480), 0.3)
        found = np.array(browser.evaluate("Array.from(state.shown.labels)")).reshape(height, width)
        assert (found == labels).mean() >= 0.999
        assert browser.complaints() == []
        assert all(asked.startswith((url, f"blob:{url}")) for asked in browser.requests())
    assert seconds <= FIRST_RESULT_S


@pytest.mark.slow
def test_the_command_writes_the_network_of_a_run_and_serves_it_until_ctrl_c(tmp_path):
    write_run(tmp_path / "run", tiny_config(), CLASSES, is_vivid=True)
    package = demos.write_fake_package(tmp_path / "package")
    words = ["demo", tmp_path / "run", f"--output={tmp_path / 'out'}", "--sizes=64x96", f"--runtime={package}"]
    command = [sys.executable, "-m", "pyrseg_jax.main", *map(str, words), "--serve", "--port=0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == str(tmp_path / "out" / "index.html")
        said = process.stdout.readline()
        assert said.endswith("/ (end with Ctrl-C)\n")
        with urllib.request.urlopen(said.split()[0]) as answer:
            assert b"<!DOCTYPE html>" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    image = draw_pair(np.random.default_rng(0), 64, 96)[0]
    result = pyrseg_jax.load(tmp_path / "run")(image)
    labels, fused, _ = demos.expected(
        (tmp_path / "out" / "model-64x96.onnx").read_bytes(), image, (64, 96), result.threshold
    )
    assert (labels == result.labels).mean() >= 0.999
    assert (np.asarray(fused.level[0]) == result.level).mean() >= 0.999
    assert len(np.unique(labels)) > 1
