"""`pyrseg predict` against the version before it could choose its outputs: images per second, and equal label maps.

    git worktree add /tmp/before f069790
    python benchmarks/predictions.py --before=/tmp/before --workdir=runs/scenes --photos=FOLDER [--num=400]

Each command is a process of its own, as a user starts it, and all write to empty folders. The first run of each fills the cache of
compiled programs and is not counted. FOLDER holds photographs; they are copied under new names until there are enough.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from timing import describe_machine, print_table, write_json

ROOT = Path(__file__).parents[1]
COMMANDS = {"before": [], "labels": ["--outputs=labels"], "labels, overlay": []}


def predict(root: Path, workdir: Path, photos: Path, out: Path, arguments: list[str]) -> tuple[float, float]:
    """Run one command; return its seconds, and the peak of its memory in MiB."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "pyrseg_jax.main", "predict", f"--workdir={workdir}", f"--input={photos}"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, f"--output={out}", *arguments], cwd=root, env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def same_labels(one: Path, other: Path) -> int:
    """Return how many label maps differ in any pixel."""
    names = [path.name for path in one.glob("*.png") if not path.stem.endswith("_pyramid")]
    return sum(
        not np.array_equal(np.asarray(Image.open(one / name)), np.asarray(Image.open(other / name))) for name in names
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="a worktree of the version before")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--num", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    workdir = options.workdir.absolute()
    with tempfile.TemporaryDirectory() as place:
        photos = Path(place) / "photos"
        photos.mkdir()
        found = sorted(path for path in options.photos.iterdir() if path.suffix in (".jpg", ".png"))
        for number, path in enumerate(itertools.islice(itertools.cycle(found), options.num)):
            shutil.copyfile(path, photos / f"{number:05d}{path.suffix}")
        times = {name: [] for name in COMMANDS}
        memory = dict.fromkeys(COMMANDS, 0.0)
        for round_number in range(options.rounds + 1):
            for name, arguments in COMMANDS.items():
                root = options.before if name == "before" else ROOT
                source = photos if round_number else _few(photos, Path(place) / "few")
                seconds, peak = predict(root, workdir, source, Path(place) / name.replace(", ", "_"), arguments)
                if round_number:
                    times[name].append(seconds)
                    memory[name] = max(memory[name], peak)
        different = same_labels(Path(place) / "before", Path(place) / "labels")
    best = {name: min(found) for name, found in times.items()}
    rows = [
        (name, f"{options.num / best[name]:.2f}", f"{best['before'] / best[name]:.1f}", f"{memory[name]:.0f}")
        for name in COMMANDS
    ]
    print(f"{options.num} photographs; whole commands; {describe_machine()}\n")
    print_table(("outputs", "images/s", "times before", "peak MiB"), rows)
    print(f"\nlabel maps that differ: {different} of {options.num}")
    write_json(options.json, {"seconds": best, "peak_mib": memory, "different": different})


def _few(photos: Path, folder: Path) -> Path:
    """Return a folder with one photograph of each size, for the run that compiles the programs."""
    folder.mkdir(exist_ok=True)
    seen = set()
    for path in sorted(photos.iterdir()):
        with Image.open(path) as image:
            if image.size not in seen:
                seen.add(image.size)
                shutil.copyfile(path, folder / path.name)
    return folder


if __name__ == "__main__":
    main()
