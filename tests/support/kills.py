"""Runs as separate programs that can be killed at chosen moments, and comparisons of what they leave behind."""

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
    "model.backbone": "hrnet_tiny",
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
# Values that depend on the clock or on where the run was killed.
UNCOMPARED = ("images_per_second", "data_wait_share", "skipped_records")


class Run:
    """One run, as a program that can be killed.

    Args:
      data: root of its data set.
      workdir: of the run.
      settings: configuration keys besides `SETTINGS`, without the leading `config.`.
    """

    def __init__(self, data: Path, workdir: Path, settings: dict):
        keys = SETTINGS | settings | {"data.root": data}
        self._command = [sys.executable, "-m", "pyrseg_jax.main", "--config=configs/scenes.py", f"--workdir={workdir}"]
        self._command += [f"--config.{name}={value}" for name, value in keys.items()]
        self.workdir = workdir

    def finish(self) -> float:
        """Run to the end and return the seconds; raises RuntimeError if the program fails."""
        start = time.perf_counter()
        done = subprocess.run(self._command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"status {done.returncode}:\n{done.stderr}")
        return time.perf_counter() - start

    def kill(self, moment: str, seconds: float, rng: random.Random, number: int) -> tuple[int, str]:
        """Start the program, send a signal at a moment, and return its exit status and the last line that it wrote.

        Args:
          moment: one of `MOMENTS`.
          seconds: that a whole run takes.
          rng: draws the exact moment.
          number: of the signal.
        """
        process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        lines = _Lines(process.stderr)
        skipped = rng.choice((0, 0, 1))
        if moment == "any":
            _wait(process, lambda: False, rng.uniform(1, min(seconds, 30)))
        elif moment == "save":
            for _ in range(1 + skipped):
                _wait(process, lambda: not self._is_saving())
                _wait(process, self._is_saving)
            time.sleep(rng.uniform(0, 0.05))
        else:
            said = {"compile": "compiling the training step", "evaluation": "evaluating step"}[moment]
            skipped = 0 if moment == "compile" else skipped
            _wait(process, lambda: sum(said in line for line in lines.found) > skipped)
            time.sleep(rng.uniform(0, 1))
        process.send_signal(number)
        status = process.wait(120)
        lines.join()
        return status, lines.found[-1] if lines.found else ""

    def _is_saving(self) -> bool:
        folder = self.workdir / "checkpoints"
        return folder.is_dir() and any("tmp" in entry.name for entry in folder.iterdir())

    def arrays(self) -> dict[str, np.ndarray]:
        """Read every array of the last checkpoint."""
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
        found = {"metrics.jsonl": [{k: v for k, v in line.items() if k not in UNCOMPARED} for line in lines]}
        for file in sorted((self.workdir / "evaluation").iterdir()):
            result = json.loads(file.read_text())
            found[file.name] = [{k: v for k, v in result.items() if k not in ("seconds", "compiled_programs")}]
        return found


class _Lines(threading.Thread):
    """Collects the lines that a process writes."""

    def __init__(self, stream: Iterable[str]):
        super().__init__(daemon=True)
        self._stream, self.found = stream, []
        self.start()

    def run(self) -> None:
        for line in self._stream:
            self.found.append(line.rstrip())


def _wait(process: subprocess.Popen, is_there: Callable[[], bool], limit_s: float = 300) -> None:
    """Return when the condition holds, the process has ended, or the time is over."""
    end = time.perf_counter() + limit_s
    while process.poll() is None and not is_there() and time.perf_counter() < end:
        time.sleep(0.002)


def disturb(run: Run, moments: Sequence[str], seconds: float, number: int, seed: int = 0) -> list[tuple[str, int, str]]:
    """Kill a run at each of the moments, starting it again every time, then let it finish; return what was hit.

    Args:
      run: to kill.
      moments: of `MOMENTS`.
      seconds: that a whole run takes.
      number: of the signal.
      seed: of the exact moments.

    Returns:
      For each start, the moment, the exit status, and the last line that the run wrote.
    """
    rng = random.Random(seed)
    hit = []
    for moment in moments:
        status, last = run.kill(moment, seconds, rng, number)
        hit.append((moment, status, last))
        print(f"{moment:<11} status {status:>3}  {last[:100]}", flush=True)
        if status not in (0, -signal.SIGKILL if number == signal.SIGKILL else 75):
            raise RuntimeError(f"status {status} after signal {number}: {last}")
    run.finish()
    return hit


def differences(run: Run, other: Run) -> list[str]:
    """List where two runs differ, to the bit."""
    found = []
    ours, theirs = run.arrays(), other.arrays()
    if ours.keys() != theirs.keys() or not ours:
        found.append("the last checkpoints hold other arrays")
    else:
        found += [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]
    records, expected = run.records(), other.records()
    found += [name for name in records.keys() | expected.keys() if records.get(name) != expected.get(name)]
    steps = [line["step"] for line in records["metrics.jsonl"]]
    if len(set(steps)) < len(steps):
        found.append("metrics.jsonl holds a step twice")
    return found


def write_images(root: Path, num_training: int = 8, num_validation: int = 12) -> None:
    """Write a data set of noisy images with two classes in the folder layout."""
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
