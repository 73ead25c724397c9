"""Commands other than `train`, killed at any moment: nothing is torn, nothing else is touched, and the same command finishes."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from support import killed_runs
from support.native_files import write_ade20k

COMMANDS = ("predict", "export", "prepare", "validate", "evaluate")
SETTINGS = {
    "training.steps": 2,
    "training.save_every": 2,
    "training.evaluate_every": 2,
    "evaluation.num_pictures": 2,
    "evaluation.report": False,
}
# Files that say by their name that they are not finished. A kill may leave them, but not the next run of the same command.
UNFINISHED = re.compile(r"(^|/)(incomplete\.|unfinished/|.*\.partial(/|$)|.*\.tmp(/|$)|.*\.part(/|$)|\.)|(^|/)lock$")
RECORD = "outputs/results/manifest.jsonl"  # it grows, and its last line may be cut off
# Values that depend on the clock or on what was compiled before.
VARYING_KEYS = ("seconds", "compiled_programs", "time", "model")
PATIENCE_S = 10  # for the processes of a killed command


class Place(NamedTuple):
    """The folders of one trial.

    root: holds everything, and nothing else does.
    outputs: what the command writes lies here.
    cache: the caches of the user who gives the command.
    """

    root: Path
    outputs: Path
    cache: Path


class Trial(NamedTuple):
    """What came of one kill: when it came, how the command ended, and everything that is not as it must be."""

    seconds: float
    status: int
    problems: list[str]


class Setting:
    """A data set, pictures and a run, which commands use and must not change.

    Args:
      root: an empty folder.
      num_pairs: pairs of the data set to prepare; from 128 on, several processes prepare it.
    """

    def __init__(self, root: Path, num_pairs: int = 160):
        self.root = root
        self._given = root / "given"
        killed_runs.write_images(self._given / "data", 4, 24)
        write_ade20k(self._given, num_training=num_pairs, num_validation=8)
        pictures = self._given / "pictures"
        pictures.mkdir()
        rng = np.random.default_rng(1)
        for i in range(12):
            Image.fromarray(rng.integers(0, 256, (60 + i, 80, 3), np.uint8)).save(pictures / f"{i}.jpg")
        killed_runs.Run(self._given / "data", root / "run", SETTINGS).finish()
        (root / "cache").mkdir()
        self._number = 0
        self._expected: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}

    def new_place(self) -> Place:
        """Make the folders of a trial; the run and the caches are copies, so that trials do not meet."""
        self._number += 1
        root = self.root / f"trial{self._number}"
        outputs = root / "outputs"
        outputs.mkdir(parents=True)
        shutil.copytree(self.root / "run", root / "run")
        shutil.copytree(self.root / "cache", root / "cache")
        return Place(root, outputs, root / "cache")

    def command(self, name: str, place: Place) -> list[str]:
        """Return the command line of a mode."""
        given, out = self._given, place.outputs
        arguments = {
            "predict": [f"--workdir={place.root}/run", f"--input={given}/pictures", f"--output={out}/results"],
            "export": [f"--workdir={place.root}/run", f"--output={out}/model.zip", "--sizes=64x64,64x96"],
            "prepare": [
                "--config=configs/ade20k.py", f"--config.data.root={given}/ADEChallengeData2016", f"--config.data.prepared={out}",
            ],
            "validate": [f"--workdir={place.root}/run"],
            "evaluate": [f"--workdir={place.root}/run", "--config.evaluation.analysis=true"],
        }[name]  # fmt: skip
        return [sys.executable, "-m", "pyrseg_jax.main", f"--mode={name}", *arguments]

    def start(self, name: str, place: Place) -> subprocess.Popen:
        """Start a command in a session of its own, by which its processes are found again."""
        environment = os.environ | {"XDG_CACHE_HOME": str(place.cache), "JAX_PLATFORMS": "cpu"}
        return subprocess.Popen(
            self.command(name, place), cwd=killed_runs.ROOT, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self, name: str, place: Place) -> str:
        """Run a command to the end; raises RuntimeError with its output if it fails."""
        process = self.start(name, place)
        text, _ = process.communicate(timeout=600)
        if process.returncode:
            raise RuntimeError(f"{name}: status {process.returncode}:\n{text[-3000:]}")
        return text

    def measure(self, name: str) -> float:
        """Run a command undisturbed, remember what it wrote, and return the seconds it takes with filled caches."""
        place = self.new_place()
        self.finish(name, place)  # fills the caches of compiled programs
        shutil.rmtree(self.root / "cache")
        shutil.copytree(place.cache, self.root / "cache")
        shutil.rmtree(place.root)
        place = self.new_place()
        start = time.perf_counter()
        self.finish(name, place)
        self.seconds[name] = time.perf_counter() - start
        self._expected[name] = written(place)
        shutil.rmtree(place.root)
        return self.seconds[name]

    def kill(self, name: str, rng: random.Random) -> Trial:
        """Kill a command at a random moment, look at what is there, give the same command again, and look once more."""
        place, expected = self.new_place(), self._expected[name]
        given, run, before = tree(self._given), tree(place.root / "run"), written(place)
        process = self.start(name, place)
        seconds = rng.uniform(0, self.seconds[name])
        time.sleep(seconds)
        process.kill()
        problems = left_processes(process)
        status = process.wait()
        problems += [f"after the kill: {problem}" for problem in torn(written(place), expected, before)]
        problems += self._touched(given, run, place, "after the kill")
        try:
            self.finish(name, place)
        except RuntimeError as error:
            problems.append(f"the same command fails: {str(error)[-300:]}")
        problems += [f"in the end: {problem}" for problem in differences(written(place), expected)]
        problems += self._touched(given, run, place, "in the end")
        shutil.rmtree(place.root, ignore_errors=True)
        return Trial(seconds, status, problems)

    def _touched(self, given: dict[str, str], run: dict[str, str], place: Place, when: str) -> list[str]:
        found = differences(tree(self._given), given)
        now = tree(place.root / "run")
        found += [f"run/{name}" for name in run if now.get(name) != run[name] and not _is_result(name)]
        return [f"{when}: {name} was touched" for name in found]


def torn(found: dict[str, str], expected: dict[str, str], before: dict[str, str]) -> list[str]:
    """List the files that are neither as they were, nor as they will be, nor named as unfinished."""
    return [
        f"{name} is torn" if name in expected else f"{name} is no result of the command"
        for name, digest in found.items()
        if not UNFINISHED.search(name) and digest not in (expected.get(name), before.get(name)) and name != RECORD
    ]


def _is_result(name: str) -> bool:
    """Return whether a file of a run is one that evaluating it writes."""
    return name.startswith(("evaluation/", "figures/"))


def written(place: Place) -> dict[str, str]:
    """Return the files that a command has written, without those of caches."""
    found = {f"outputs/{name}": digest for name, digest in tree(place.outputs).items()}
    results = tree(place.root / "run")
    return found | {f"run/{name}": digest for name, digest in results.items() if _is_result(name)}


def tree(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder, without what depends on the clock."""
    return {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


def _digest(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".zip":  # the times of its entries differ
            with zipfile.ZipFile(path) as file:
                entries = [(info.filename, hashlib.sha256(file.read(info)).hexdigest()) for info in file.infolist()]
            content = json.dumps(entries).encode()
        elif path.suffix == ".json":
            content = json.dumps(_without_clock(json.loads(content))).encode()
        elif path.suffix == ".jsonl":  # a record of what was written, also of what the kill prevented
            content = json.dumps(
                sorted({json.dumps(_without_clock(json.loads(line))) for line in content.splitlines()})
            ).encode()
        elif path.suffix == ".pdf":  # Matplotlib notes when it drew the figure
            content = re.sub(rb"/CreationDate \(.*?\)", b"", content)
        elif ".array_record" in path.name:  # the same records may be packed in several ways, too
            content = _records(path)
    except FileNotFoundError:
        return "absent"
    except (ValueError, RuntimeError, IndexError, zipfile.BadZipFile):
        return "damaged"
    return hashlib.sha256(content).hexdigest()


def _records(path: Path) -> bytes:
    """Return digests of the records. Protocol Buffers write the fields of a record in any order, so its bytes are sorted first."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    try:
        return b"".join(hashlib.sha256(bytes(sorted(record))).digest() for record in reader.read_all())
    finally:
        reader.close()


def _without_clock(value):
    if isinstance(value, dict):
        return {key: _without_clock(item) for key, item in value.items() if key not in VARYING_KEYS}
    return [_without_clock(item) for item in value] if isinstance(value, list) else value


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """List the files that are missing, differ, or are too many."""
    missing = [f"{name} is missing" for name in expected.keys() - found.keys()]
    more = [f"{name} is left over" for name in found.keys() - expected.keys()]
    return sorted(missing + more + [f"{n} differs" for n in found.keys() & expected.keys() if found[n] != expected[n]])


def left_processes(process: subprocess.Popen) -> list[str]:
    """Wait for the processes of a killed command to end, and list those that do not; they are then ended."""
    end = time.monotonic() + PATIENCE_S
    while (left := _of_session(process.pid)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return [f"process {pid} is left" for pid in left]


def _of_session(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def trials(setting: Setting, name: str, num_kills: int, seed: int, say: Callable[[str], None] = print) -> list[Trial]:
    """Kill a command at random moments, and say what came of each."""
    rng = random.Random(f"{seed} {name}")
    found = []
    for _ in range(num_kills):
        trial = setting.kill(name, rng)
        say(f"{name:<9} killed after {trial.seconds:5.2f} s of {setting.seconds[name]:.2f}, status {trial.status}: "
            f"{'; '.join(trial.problems) or 'held'}")  # fmt: skip
        found.append(trial)
    return found
