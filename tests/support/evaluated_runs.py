"""Runs that consist of results and counts of images alone, as `pyrseg evaluate` leaves them; comparing them needs no network."""

import hashlib
import json
from pathlib import Path

import numpy as np
from etils import epath

from pyrseg_jax.evaluation.image_scores import ImageCounts, collect_counts, to_lists
from pyrseg_jax.evaluation.metrics import scores
from pyrseg_jax.run.image_counts import write_image_counts

STEP = 660


def draw_truth(rng, num_images, num_classes, num_pixels=400):
    """Draw label maps: for each image a row of pixels of some classes, of which the later ones are rarer."""
    weights = 0.7 ** np.arange(num_classes)
    found = []
    for _ in range(num_images):
        shown = weights * (rng.random(num_classes) < 0.6)
        shown[0] += 1e-3
        found.append(rng.choice(num_classes, num_pixels, p=shown / shown.sum()))
    return found


def predict(rng, truth, accuracy):
    """Predict label maps that are right with a probability that varies from image to image."""
    num_classes = 1 + max(int(x.max()) for x in truth)
    found = []
    for x in truth:
        is_right = rng.random(x.shape) < np.clip(accuracy + 0.15 * rng.standard_normal(), 0, 1)
        found.append(np.where(is_right, x, rng.integers(0, num_classes, x.shape)))
    return found


def count(truth, predicted, num_classes):
    """Return the confusion matrix of each image; row = truth."""
    index = [num_classes * t + p for t, p in zip(truth, predicted, strict=True)]
    size = num_classes**2
    return np.stack([np.bincount(i, minlength=size).reshape(num_classes, -1) for i in index])


def write_evaluated(workdir, matrices, digests, step=STEP, names=None, has_counts=True, name=None, **changes):
    """Write a run with one result, and return its folder.

    Args:
      workdir: the folder.
      matrices: (N, C, C) confusion matrices of the images.
      digests: of the images, bytes.
      step: the step of the result.
      names: of the classes.
      has_counts: whether to write the counts of the images.
      name: of the result, without the suffix.
      changes: of the result.
    """
    workdir = Path(workdir)
    names = names or [f"class{i}" for i in range(matrices.shape[1])]
    confusion = matrices.sum(0)
    counts = np.stack([matrices.diagonal(axis1=1, axis2=2), matrices.sum(1), matrices.sum(2)], -1)
    images = collect_counts([list(zip(digests, counts, strict=True))])
    protocol = {
        "name": "single",
        "scales": [1.0],
        "flip": False,
        "threshold": 0.5,
        "short_side_px": None,
        "initialisation": "random",
    }
    result = scores(confusion, names) | {
        "step": step,
        "images": len(matrices),
        "confusion": confusion.tolist(),
        "boundary_miou": 0.5 * (scores(confusion, names)["miou"] or 0),
        "boundary_px": 8,
        "level_share": [0.25, 0.75],
        "protocol": protocol,
        "data": {"name": "folder", "place": "mydata", "split": "validation", "fingerprint": fingerprint_of(images)},
    }
    path = workdir / "evaluation" / f"{name or f'validation-{step}'}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result | changes))
    (workdir / "config.json").write_text(
        json.dumps({"evaluation": {"split": "validation", "protocol": "single", "threshold": 0.5}})
    )
    if has_counts:
        write_image_counts(epath.Path(path), names, to_lists(images))
    return workdir


def fingerprint_of(images: ImageCounts) -> str:
    """Return a text of 64 digits that depends on the digests of the images alone."""
    return hashlib.sha256(repr(images.digests).encode()).hexdigest()


def digests_of(numbers):
    """Return the digests of numbered images."""
    return [int(i).to_bytes(4, "big") * 8 for i in numbers]
