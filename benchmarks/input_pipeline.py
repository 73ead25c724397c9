"""Time the input pipeline, stage by stage and as a whole, and compare it with a PyTorch DataLoader that does the same work.

    python benchmarks/input_pipeline.py [--torch_python=PYTHON] [--root=FOLDER] [--workers=2]

The pipeline makes 512×512 crops, scaled by 0.5 … 2 and mirrored, from JPEGs of 683×512 pixels: rendered street scenes, or the
training split of a folder in this project's layout. PYTHON is an interpreter with torch, opencv-python-headless and numpy, which
runs the DataLoader (with OpenCV, see torch_loader.py); without it, only our pipeline is timed.

Prints the images per second of each stage on one core. Then prints, measured in turn, the images per second and the CPU time per
image of both loaders with the same number of workers. On a machine that runs other programs, the CPU time is the better measure.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
from absl import flags
from PIL import Image
from process_tree import cpu_seconds

from pyrseg_jax.data import decode, pipeline
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.scenes import CLASS_NAMES, paint_scene

NUM_SCENES, NUM_NAMES, WIDTH, HEIGHT = 24, 4800, 683, 512
CROP, SCALES, BATCH = 512, (0.5, 2.0), 16
ROUNDS, BATCHES = 3, 40


def write_scenes(root: Path) -> Path:
    """Render a data set in the folder layout."""
    (root / "classes.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    for kind in ("images", "annotations"):
        (root / kind / "training").mkdir(parents=True)
    for i in range(NUM_SCENES):
        image, label = paint_scene("training", i, size_px=WIDTH)
        Image.fromarray(image[-HEIGHT:]).save(root / "images" / "training" / f"{i:03}.jpg", quality=90)
        Image.fromarray(label[-HEIGHT:]).save(root / "annotations" / "training" / f"{i:03}.png")
        # Links give as many names as a real data set has: Grain is slower at shuffling a few dozen indices than thousands.
        for copy in range(1, NUM_NAMES // NUM_SCENES):
            for kind, end in (("images", "jpg"), ("annotations", "png")):
                folder = root / kind / "training"
                os.link(folder / f"{i:03}.{end}", folder / f"{i:03}-{copy:03}.{end}")
    return root


def time_stages(dataset) -> None:
    """Print the time of each stage on one core."""
    cv2.setNumThreads(0)
    source, space = dataset.open_split("training"), dataset.label_space
    num = min(len(source), NUM_SCENES)
    records = [source[i * len(source) // num] for i in range(num)]
    pairs = [decode.decode_pair(record, space) for record in records]
    augment, generator = Augmentation(CROP, *SCALES, True), np.random.default_rng(0)
    crops = [augment(pair, generator) for pair in pairs][:BATCH]
    stages = {
        "read the files": lambda i: source[i],
        "decode the image": lambda i: decode.decode_image(records[i]["image"], "x"),
        "decode the label": lambda i: decode.decode_label(records[i]["label"], "x", space),
        "both, with checks": lambda i: decode.decode_pair(records[i], space),
        "augment": lambda i: augment(pairs[i], generator),
    }
    print("stage, on one core           ms/image  images/s")
    for name, work in stages.items():
        laps = []
        for _ in range(ROUNDS):
            start = time.process_time()
            for i in range(num):
                work(i)
            laps.append((time.process_time() - start) / num)
        print(f"{name:<27}  {1e3 * min(laps):8.2f}  {1 / min(laps):8.0f}")
    start = time.process_time()
    for _ in range(10):
        np.stack([crop.image for crop in crops]), np.stack([crop.label for crop in crops])
    per_image = (time.process_time() - start) / 10 / len(crops)
    print(f"{'batch':<27}  {1e3 * per_image:8.2f}  {1 / per_image:8.0f}")


def measure_ours(root: Path, workers: int, num_batches: int) -> dict:
    """Measure our pipeline, as `torch_loader.measure` does the DataLoader."""
    dataset = open_dataset("folder", str(root), None)
    stream = pipeline.training_batches(
        dataset.open_split("training"), dataset.label_space, Augmentation(CROP, *SCALES, True),
        batch_size=BATCH, seed=0, workers=workers,
    )  # fmt: skip
    num_first = workers * 2 or 1
    for _ in range(num_first):
        next(stream)
    before, start = cpu_seconds(), time.perf_counter()
    for _ in range(num_batches):
        next(stream)
    elapsed, used = time.perf_counter() - start, cpu_seconds() - before
    stream.close()
    num_images = num_batches * BATCH
    return {"images_per_second": num_images / elapsed, "cpu_s_per_image": used / num_images}


def measure_torch(python: str, root: Path, workers: int, num_batches: int, *extra: str) -> dict:
    """Run `torch_loader.py` with another interpreter, and return its measurements."""
    command = [
        python, str(Path(__file__).with_name("torch_loader.py")), str(root), f"--crop={CROP}", f"--batch_size={BATCH}",
        f"--workers={workers}", f"--num_batches={num_batches}", "--scales", *map(str, SCALES), *extra,
    ]  # fmt: skip
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def ours_in_a_process(root: Path, workers: int, num_batches: int) -> dict:
    """Run `measure_ours` in a process of its own, because the DataLoader also gets one."""
    command = [sys.executable, __file__, f"--root={root}", f"--workers={workers}", f"--only_ours={num_batches}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def compare(root: Path, python: str | None, workers: int, num_batches: int) -> None:
    """Measure both loaders in turn, and print their rates."""
    runs = {"ours": lambda: ours_in_a_process(root, workers, num_batches)}
    if python:
        runs["PyTorch"] = lambda: measure_torch(python, root, workers, num_batches)
        runs["PyTorch, normalizing"] = lambda: measure_torch(python, root, workers, num_batches, "--normalize")
    found = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            found[name].append(run())
    print(f"\nwhole pipeline, {workers} workers  images/s  images/s per CPU second (medians of {ROUNDS})")
    rates = {}
    for name, results in found.items():
        rates[name] = [
            statistics.median(r["images_per_second"] for r in results),
            1 / statistics.median(r["cpu_s_per_image"] for r in results),
        ]
        print(f"{name:<25}  {rates[name][0]:8.1f}  {rates[name][1]:8.1f}")
    for name in list(rates)[1:]:
        clock, cpu = (rates["ours"][i] / rates[name][i] for i in range(2))
        print(f"ours / {name}: {clock:.2f} by wall-clock time, {cpu:.2f} by CPU time")


def main() -> None:
    """Time the stages, then both loaders."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, help="a data set in the folder layout; by default, one is rendered")
    parser.add_argument("--torch_python", help="the interpreter that runs the DataLoader")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=BATCHES, help="number of batches to time")
    parser.add_argument("--only_ours", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # Grain's workers require it
    if args.only_ours:
        print(json.dumps(measure_ours(args.root, args.workers, args.only_ours)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = args.root or write_scenes(Path(folder) / "scenes")
        time_stages(open_dataset("folder", str(root), None))
        compare(root, args.torch_python, args.workers, args.batches)


if __name__ == "__main__":
    main()
