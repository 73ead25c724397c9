"""Write small data sets in the folder layout, with pictures that a network can learn."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("sky", "ground", "post")


def draw_pair(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a learnable picture: sky above ground, and a dark post in front. Label values are 1, 2, 3, and 0 on a void border."""
    horizon, post = int(height * rng.uniform(0.3, 0.6)), int(width * rng.uniform(0.2, 0.7))
    label = np.full((height, width), 1, np.uint8)
    label[horizon:] = 2
    label[horizon] = 0
    label[horizon // 2 :, post : post + max(width // 12, 4)] = 3
    palette = np.array([[0, 0, 0], [120, 160, 230], [90, 140, 60], [60, 30, 30]])
    noise = rng.normal(0, 8, (height, width, 3))
    return np.clip(palette[label] + noise, 0, 255).astype(np.uint8), label


def write_folder(root: Path, counts: dict[str, int], size: tuple[int, int] = (48, 64), seed: int = 0) -> Path:
    """Write a data set in the folder layout; `size` is (height, width)."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for split, count in counts.items():
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            image, label = draw_pair(rng, *size)
            Image.fromarray(image).save(root / "images" / split / f"{split}_{i}.jpg", quality=95)
            Image.fromarray(label).save(root / "annotations" / split / f"{split}_{i}.png")
    return root
