"""A PyTorch DataLoader that does the same work as our input pipeline, with OpenCV and on the same files.

`input_pipeline.py` starts this script, which prints a line of JSON. It needs torch, opencv-python-headless and numpy, but not
this project.
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from process_tree import cpu_seconds
from torch.utils.data import DataLoader, Dataset

PADDING = (124, 116, 104)
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


class Pairs(Dataset):
    """Decode, scale, pad, crop and mirror pairs of images and labels, as segmentation projects commonly do it."""

    def __init__(self, root: Path, crop: int, scales: tuple[float, float], is_normalized: bool):
        self.images = sorted((root / "images" / "training").iterdir())
        self.labels = [root / "annotations" / "training" / f"{path.stem}.png" for path in self.images]
        self.crop, self.scales, self.is_normalized = crop, scales, is_normalized
        cv2.setNumThreads(0)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        cv2.setNumThreads(0)
        image = cv2.cvtColor(cv2.imread(str(self.images[index])), cv2.COLOR_BGR2RGB)
        label = cv2.imread(str(self.labels[index]), cv2.IMREAD_UNCHANGED)
        scale = np.random.uniform(*self.scales)
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        below, right = max(self.crop - label.shape[0], 0), max(self.crop - label.shape[1], 0)
        if below or right:
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=PADDING)
            label = cv2.copyMakeBorder(label, 0, below, 0, right, cv2.BORDER_CONSTANT, value=0)
        top = np.random.randint(label.shape[0] - self.crop + 1)
        left = np.random.randint(label.shape[1] - self.crop + 1)
        window = slice(top, top + self.crop), slice(left, left + self.crop)
        image, label = image[window], label[window]
        if np.random.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        label = label - np.uint8(1)  # void, 0 in the file, becomes 255
        if self.is_normalized:
            image = ((image.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(np.ascontiguousarray(label))


def measure(dataset: Pairs, batch_size: int, workers: int, num_batches: int) -> dict:
    """Return images per second and CPU seconds per image, without the start of the workers and the first batches."""
    num_first = workers * 2 or 1
    # The loader has prefetched batches when the measurement begins, so it has to prefetch as many until it ends.
    indices = np.random.default_rng(0).integers(len(dataset), size=(num_batches + 2 * num_first) * batch_size)
    loader = DataLoader(
        torch.utils.data.Subset(dataset, indices.tolist()),
        batch_size,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    stream = iter(loader)
    for _ in range(num_first):
        next(stream)
    before, start = cpu_seconds(), time.perf_counter()
    for _ in range(num_batches):
        next(stream)
    elapsed, used = time.perf_counter() - start, cpu_seconds() - before
    num_images = num_batches * batch_size
    return {"images_per_second": num_images / elapsed, "cpu_s_per_image": used / num_images}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", type=Path)
    for name in ("crop", "batch_size", "workers", "num_batches"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--scales", type=float, nargs=2)
    parser.add_argument("--normalize", action="store_true")
    args = parser.parse_args()
    pairs = Pairs(args.root, args.crop, tuple(args.scales), args.normalize)
    found = measure(pairs, args.batch_size, args.workers, args.num_batches)
    print(json.dumps({"torch": torch.__version__, "opencv": cv2.__version__, **found}))
