"""Prepare and read a stand-in for ADE20K, and measure time, memory and disk space.

    python benchmarks/preparation.py --sizes=SIZES.csv [--images=22210] [--folder=FOLDER]

SIZES.csv has the columns split, name, width and height, and the stand-in has an image for each of its rows. The images are cut from
rendered street scenes and stored as JPEG with quality 90; all images of one size are links to one file. FOLDER, by default a
temporary folder, receives the files and the prepared data set.
"""

import argparse
import csv
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
from absl import flags
from PIL import Image
from process_tree import resident_mib

from pyrseg_jax.data import pipeline, prepared
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.datasets import ade20k
from pyrseg_jax.data.spec import DataLocation
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.scenes import paint_scene

NUM_SCENES, BATCH, BATCHES, WORKERS = 8, 16, 60, 2


def write_stand_ins(sizes: list[dict], base: Path) -> int:
    """Write the files in ADE20K's layout, and return their size in bytes."""
    scenes = [paint_scene("training", i, size_px=768) for i in range(NUM_SCENES)]
    first: dict[tuple, tuple[Path, Path]] = {}
    num_bytes = 0
    for split in {row["split"] for row in sizes}:
        for kind in ("images", "annotations"):
            (base / kind / split).mkdir(parents=True, exist_ok=True)
    for row in sizes:
        size = int(row["width"]), int(row["height"])
        paths = tuple(
            base / kind / row["split"] / f"{row['name']}.{end}"
            for kind, end in (("images", "jpg"), ("annotations", "png"))
        )
        if size in first:
            for old, new in zip(first[size], paths):
                os.link(old, new)
        else:
            image, label = scenes[len(first) % NUM_SCENES]
            # Enlarge a scene that is too small by a whole number: this invents no detail that a photograph would not have.
            factor = max(-(-size[0] // 768), -(-size[1] // 768))
            whole = cv2.resize(image, None, fx=factor, fy=factor)[: size[1], : size[0]]
            values = np.kron(label, np.ones((factor, factor), np.uint8))[: size[1], : size[0]]
            Image.fromarray(whole).save(paths[0], quality=90)
            Image.fromarray(values).save(paths[1])
            first[size] = paths
        num_bytes += sum(path.stat().st_size for path in paths)
    return num_bytes


class PeakMemory:
    """Sample the memory of this process and its descendants twice a second (Linux)."""

    def __enter__(self) -> "PeakMemory":
        self.largest_mib = self.sum_mib = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.5):
            sizes = resident_mib()
            self.largest_mib, self.sum_mib = max(self.largest_mib, *sizes), max(self.sum_mib, sum(sizes))


def report(name: str, start: float, count: int, memory: PeakMemory) -> None:
    """Print the time since `start` for `count` images, and the peak memory."""
    seconds = time.perf_counter() - start
    print(
        f"{name}: {seconds:.1f} s, {count / seconds:.0f} images/s; at most {memory.largest_mib:.0f} MiB in one process, "
        f"{memory.sum_mib:.0f} MiB in all processes",
        flush=True,
    )


def main() -> None:
    """Read the sizes, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=Path, required=True, help="CSV with the columns split, name, width and height")
    parser.add_argument("--images", type=int, help="use only this many rows, spread over the file")
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    args = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # Grain's workers require it
    with args.sizes.open(newline="") as file:
        sizes = list(csv.DictReader(file))
    if args.images:  # rows of both splits
        sizes = [sizes[i * len(sizes) // args.images] for i in range(args.images)]
    with tempfile.TemporaryDirectory() as temporary:
        run(sizes, args.folder or Path(temporary))


def run(sizes: list[dict], folder: Path) -> None:
    """Write the files, prepare the data set, open it again, and read records and training batches."""
    start = time.perf_counter()
    num_bytes = write_stand_ins(sizes, folder / "ADEChallengeData2016")
    print(
        f"{len(sizes)} pairs, {num_bytes / 2**20:.0f} MiB, written in {time.perf_counter() - start:.0f} s", flush=True
    )
    root, target = str(folder / "ADEChallengeData2016"), str(folder / "prepared")
    with PeakMemory() as memory:
        start = time.perf_counter()
        place = prepared.prepare_files(ade20k.FILES, DataLocation(root, target))
    report("prepared", start, len(sizes), memory)
    files = [path for path in place.rglob("*") if path.is_file()]
    print(f"on disk: {sum(path.stat().st_size for path in files) / 2**20:.0f} MiB in {len(files)} files")
    start = time.perf_counter()
    dataset = open_dataset("ade20k", root, target)
    source = dataset.open_split("training")
    print(f"opened again: {time.perf_counter() - start:.1f} s")
    order = np.random.default_rng(0).permutation(len(source))[:2000]
    start = time.perf_counter()
    for index in order:
        source[int(index)]
    print(f"reading records in random order: {1e3 * (time.perf_counter() - start) / len(order):.2f} ms each")
    stream = pipeline.training_batches(
        source, dataset.label_space, Augmentation(512, 0.5, 2.0, True), batch_size=BATCH, seed=0, workers=WORKERS
    )
    with PeakMemory() as memory:
        for _ in range(2 * WORKERS):
            next(stream)
        start = time.perf_counter()
        for _ in range(BATCHES):
            next(stream)
    report(f"training batches, {WORKERS} workers, 512×512", start, BATCHES * BATCH, memory)
    stream.close()


if __name__ == "__main__":
    main()
