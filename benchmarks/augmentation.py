"""Time each augmentation on one core, beside decoding, and print by how much it slows the pipeline.

    python benchmarks/augmentation.py [--root=FOLDER] [--crop=512]

Decodes and augments JPEGs of 683×512 pixels: rendered street scenes, or the training split of a folder in this project's layout.
Each line switches one change on for every image, on top of scale, crop and mirroring. Times are CPU times, the least of several
rounds in turn, because other programs only add to them. Mixing reads and augments a second image.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
from input_pipeline import NUM_SCENES, SCALES, write_scenes

from pyrseg_jax.data import decode
from pyrseg_jax.data.augmentation.degradation import Blur, JpegCompression, Noise
from pyrseg_jax.data.augmentation.erasing import Erasing
from pyrseg_jax.data.augmentation.geometry import Affine
from pyrseg_jax.data.augmentation.mixing import Mix
from pyrseg_jax.data.augmentation.photometric import Photometric
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.transforms import Augmentation

ROUNDS = 7
CHANGES = {
    "none": {},
    "color jitter": {"color_jitter": 0.3},
    "stretch": {"affine": Affine(aspect=1.3)},
    "rotation and shear": {"affine": Affine(20.0, 10.0)},
    "photometric distortion": {"effects": (Photometric(),)},
    "blur": {"effects": (Blur(1.0),)},
    "noise": {"effects": (Noise(1.0),)},
    "JPEG compression": {"effects": (JpegCompression(1.0),)},
    "erasing": {"effects": (Erasing(1.0),)},
    "CutMix": {"mix": Mix("cutmix", 1.0)},
    "ClassMix": {"mix": Mix("classmix", 1.0)},
    "all but mixing": {
        "affine": Affine(20.0, 10.0, 1.3),
        "color_jitter": 0.3,
        "effects": (Photometric(), Blur(1.0), Noise(1.0), JpegCompression(1.0), Erasing(1.0)),
    },
}


def seconds_per_image(work: Callable[[int], object], num: int) -> float:
    """Return the CPU time of one call of `work`, the mean over the indices 0 … num - 1."""
    start = time.process_time()
    for index in range(num):
        work(index)
    return (time.process_time() - start) / num


def make_work(records: list, space, crop_px: int, change: dict) -> Callable[[int], object]:
    """Return a function that decodes and augments a record, and mixes it with the next one if the change says so."""
    generator = np.random.default_rng(0)
    augment = Augmentation(crop_px, *SCALES, True, **change)

    def pair_of(index: int) -> decode.Pair:
        return augment(decode.decode_pair(records[index % len(records)], space), generator)

    def work(index: int) -> decode.Pair:
        pair = pair_of(index)
        return pair if augment.mix is None else augment.mix(pair, pair_of(index + 1), generator)

    return work


def time_changes(dataset, crop_px: int) -> None:
    """Print the time per image of each change."""
    cv2.setNumThreads(0)
    source, space = dataset.open_split("training"), dataset.label_space
    num = min(len(source), NUM_SCENES)
    records = [source[i * len(source) // num] for i in range(num)]
    works = {name: make_work(records, space, crop_px, change) for name, change in CHANGES.items()}
    works["decoding the JPEG"] = lambda i: decode.decode_image(records[i]["image"], "x")
    for work in works.values():
        work(0)
    laps = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            laps[name].append(seconds_per_image(work, num))
    times = {name: 1e3 * min(found) for name, found in laps.items()}
    decoding, plain = times.pop("decoding the JPEG"), times["none"]
    print(f"decoding a JPEG of 683×512 pixels takes {decoding:.2f} ms")
    print(
        f"{'on top of scale, crop, mirror':<30}  ms/image  images/s  share of the rate without  change / decoding a JPEG"
    )
    for name, found in times.items():
        print(
            f"{name:<30}  {found:8.2f}  {1e3 / found:8.0f}  {plain / found:25.2f}  {(found - plain) / decoding:24.2f}"
        )


def main() -> None:
    """Render the images if needed, and time the changes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, help="a data set in the folder layout; by default, one is rendered")
    parser.add_argument("--crop", type=int, default=512, help="height and width of the crops, in pixels")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.root or write_scenes(Path(folder) / "scenes")
        time_changes(open_dataset("folder", str(root), None), args.crop)


if __name__ == "__main__":
    main()
