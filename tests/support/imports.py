"""Import a source in a test, and read what was written."""

from pathlib import Path

import numpy as np
from PIL import Image

from pyrseg_jax.importing.annotations import Options
from pyrseg_jax.importing.class_list import read_class_list
from pyrseg_jax.importing.importer import Plan, import_dataset
from support.label_tools import Sample, Scenes

SPLITS = {"train": "training", "val": "validation"}


def import_from(
    source: Path, output: Path, format_name: str | None = None, classes: Path | None = None, **options
) -> dict:
    """Import with the options and the plan that are given by name."""
    plan = {name: options.pop(name) for name in list(options) if name in Plan._fields}
    listed = None if classes is None else read_class_list(classes)
    return import_dataset(str(source), str(output), format_name, Options(classes=listed, **options), Plan(**plan))


def label_maps(output: Path) -> dict[str, np.ndarray]:
    """Return stem → label map of all splits."""
    return {path.stem: np.asarray(Image.open(path)) for path in sorted(output.glob("annotations/*/*.png"))}


def agreement(scenes: Scenes, output: Path, stem_of=lambda sample: sample.name, has_splits: bool = True) -> float:
    """Return the share of pixels whose class has the name of the scenes' class; with `has_splits`, splits are compared, too."""
    names = (output / "classes.txt").read_text().splitlines()
    own = {name.lower(): value for value, name in enumerate(scenes.names, 1)}
    table = np.array([0, *(own.get(name.lower(), 254) for name in names)])
    equal, total = 0, 0
    for sample in scenes.samples:
        split = SPLITS[sample.split] if has_splits else "*"
        (path,) = (output / "annotations").glob(f"{split}/{stem_of(sample)}.png")
        found = table[np.asarray(Image.open(path))]
        equal += int((found == sample.label).sum())
        total += sample.label.size
    return equal / total


def toy_scenes(num: int = 4, side: int = 24, seed: int = 0) -> Scenes:
    """Return small samples with regions, holes and void."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(num):
        label = np.full((side, side + 4), 1, np.uint8)
        for value in (2, 3, 0):
            top, left = rng.integers(0, side - 8, 2)
            label[top : top + 7, left : left + 7] = value
            label[top + 2 : top + 4, left + 2 : left + 5] = (value + 1) % 4
        image = rng.integers(0, 255, (*label.shape, 3), np.uint8)
        samples.append(Sample(f"picture_{i}", "train" if i < num - 1 else "val", image, label))
    return Scenes(("grass", "house", "tree"), tuple(samples))
