"""Runs as separate programs that can be killed at chosen moments and compared with each other."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
MOMENTS = ("any", "compile", "save", "evaluation")
SETTINGS = {
    "data.name": "folder",
    "data.crop_px": 64,
    "data.workers": 0,
    "model.backbone": "resnet_tiny",  # compiled in half of the time of an HRNet
    "model.strides": "(32,16,8)",
    "model.semantic_width": 16,
    "model.key_width": 8,
    "model.unity_width": 8,
    "model.dtype": "float32",
    "training.batch_size": 4,
    "training.steps": 60,
    "training.log_every": 1,
    "training.evaluate_every": 12,
    "training.save_every": 5,
    "evaluation.batch_size": 2,
    "evaluation.num_pictures": 0,
    "evaluation.analysis": False,
}
# These values depend on the clock, or on how often a run was started.
UNCOMPARED_METRICS = ("images_per_second", "data_wait_share", "skipped_records")
UNCOMPARED_SCORES = ("seconds", "compiled_programs")
# Log lines that tell that a phase has begun.
PHASE_LINES = {"compile": "compiling the training step", "evaluation": "evaluating step"}


class Run:
    """One training run, started as a separate program.

    Args:
      data: a data set in the folder layout, as `write_images` makes it.
      workdir: the folder of the run.
      settings: configuration keys to change beside `SETTINGS`, without the leading `config.`.
    """

    def __init__(self, data: Path, workdir: Path, settings: dict):
        keys = SETTINGS | settings | {"data.root": data}
        self._command = [sys.executable, "-m", "pyrseg_jax.main", "--config=configs/scenes.py", f"--workdir={workdir}"]
        self._command += [f"--config.{name}={value}" for name, value in keys.items()]
        self.workdir = workdir

    def finish(self) -> float:
        """Run to the end and return the seconds it took.

        Raises:
          RuntimeError: if the run fails; the message holds its standard error.
        """
        start = time.perf_counter()
        done = subprocess.run(self._command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"status {done.returncode}:\n{done.stderr}")
        return time.perf_counter() - start

    def kill(self, moment: str, duration_s: float, rng: random.Random, signal_number: int) -> tuple[int, str]:
        """Start the run, send it a signal at some moment, and wait for its end.

        Args:
          moment: one of `MOMENTS`.
          duration_s: how long a whole run takes.
          rng: draws the exact time within the moment.
          signal_number: the signal to send.

        Returns:
          The exit status, and the last line of standard error.
        """
        process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None  # because it is a pipe
        lines = _Lines(process.stderr)
        num_skipped = rng.choice((0, 0, 1))  # also interrupt the second checkpoint or evaluation at times
        if moment == "any":
            _wait(process, lambda: False, rng.uniform(1, min(duration_s, 30)))
        elif moment == "save":
            for _ in range(1 + num_skipped):
                _wait(process, lambda: not self._is_saving())
                _wait(process, self._is_saving)
            time.sleep(rng.uniform(0, 0.05))
        else:
            num_skipped = 0 if moment == "compile" else num_skipped
            _wait(process, lambda: sum(PHASE_LINES[moment] in line for line in lines.found) > num_skipped)
            time.sleep(rng.uniform(0, 1))
        process.send_signal(signal_number)
        status = process.wait(120)
        lines.join()
        return status, lines.found[-1] if lines.found else ""

    def _is_saving(self) -> bool:
        # Orbax writes a checkpoint into a folder with "tmp" in its name and renames it at the end.
        folder = self.workdir / "checkpoints"
        return folder.is_dir() and any("tmp" in entry.name for entry in folder.iterdir())

    def arrays(self) -> dict[str, np.ndarray]:
        """Read every array of the last checkpoint, including the optimizer's."""
        import jax
        import orbax.checkpoint as ocp

        folder = self.workdir / "checkpoints"
        newest = max((entry for entry in folder.iterdir() if entry.name.isdigit()), key=lambda entry: int(entry.name))
        found = {}
        for part in ("variables", "training"):
            tree = ocp.StandardCheckpointer().restore((newest / part).absolute())
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                found[f"{newest.name}/{part}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
        return found

    def records(self) -> dict[str, list]:
        """Read the metrics and the evaluations, without the values that depend on the clock."""
        lines = [json.loads(line) for line in (self.workdir / "metrics.jsonl").read_text().splitlines()]
        found = {"metrics.jsonl": [{k: v for k, v in line.items() if k not in UNCOMPARED_METRICS} for line in lines]}
        for file in sorted((self.workdir / "evaluation").iterdir()):
            result = json.loads(file.read_text())
            found[file.name] = [{k: v for k, v in result.items() if k not in UNCOMPARED_SCORES}]
        return found


class _Lines(threading.Thread):
    """Collect the lines that a process writes while it runs."""

    def __init__(self, stream: Iterable[str]):
        super().__init__(daemon=True)
        self._stream, self.found = stream, []
        self.start()

    def run(self) -> None:
        for line in self._stream:
            self.found.append(line.rstrip())


def _wait(process: subprocess.Popen, has_come: Callable[[], bool], limit_s: float = 300) -> None:
    """Return when the condition holds, the process has ended, or the time is over."""
    end = time.perf_counter() + limit_s
    while process.poll() is None and not has_come() and time.perf_counter() < end:
        time.sleep(0.002)


def disturb(
    run: Run, moments: Sequence[str], duration_s: float, signal_number: int, seed: int = 0
) -> list[tuple[str, int, str]]:
    """Kill a run at each of the moments, restart it every time, and finally let it finish.

    Returns:
      For each moment: the moment, the exit status, and the last line of standard error.

    Raises:
      RuntimeError: if a start ends with an unexpected status, or the last one fails.
    """
    rng = random.Random(seed)
    hit = []
    for moment in moments:
        status, last = run.kill(moment, duration_s, rng, signal_number)
        hit.append((moment, status, last))
        print(f"{moment:<11} status {status:>3}  {last[:100]}", flush=True)
        if status not in (0, -signal.SIGKILL if signal_number == signal.SIGKILL else 75):
            raise RuntimeError(f"status {status} after signal {signal_number}: {last}")
    run.finish()
    return hit


def differences(run: Run, other: Run) -> list[str]:
    """List the arrays, records and files in which two finished runs differ; an empty list if they are equal."""
    found = []
    arrays, expected_arrays = run.arrays(), other.arrays()
    if arrays.keys() != expected_arrays.keys() or not arrays:
        found.append("the last checkpoints hold different arrays")
    else:
        found += [name for name in arrays if arrays[name].tobytes() != expected_arrays[name].tobytes()]
    records, expected = run.records(), other.records()
    found += [name for name in records.keys() | expected.keys() if records.get(name) != expected.get(name)]
    steps = [line["step"] for line in records["metrics.jsonl"]]
    if len(set(steps)) < len(steps):
        found.append("metrics.jsonl holds a step twice")
    return found


def write_images(root: Path, num_training: int = 8, num_validation: int = 12) -> None:
    """Write a noisy data set with two classes, one above the other, in the folder layout."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    (root / "classes.txt").write_text("above\nbelow\n")
    for split, count in (("training", num_training), ("validation", num_validation)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            label = np.where(np.arange(60)[:, None] < rng.integers(15, 45), 1, 2) * np.ones((1, 64), int)
            image = np.clip(label[..., None] * 70 + rng.normal(0, 20, (60, 64, 3)), 0, 255)
            Image.fromarray(image.astype(np.uint8)).save(root / "images" / split / f"{i}.png")
            Image.fromarray(label.astype(np.uint8)).save(root / "annotations" / split / f"{i}.png")
