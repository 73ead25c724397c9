"""Time how an evaluation finds the class of every pixel on CPU: before and now, with and without the analysis, and PyTorch's way.

    python benchmarks/evaluation_pixels.py --root=COCO_STUFF10K [--classes=21,150,171] [--images=4] [--rounds=3] [--before]
    python benchmarks/evaluation_pixels.py --root=COCO_STUFF10K --whole [--images=40] [--batch=8] [--rounds=3] [--before]

The first form times the way from logits to counts, on pyramids of logits that are made from the label maps of COCO-Stuff 10K:
  trained: each label map, blurred, with smooth noise and a little white noise, as a trained network sees it;
  noise: white noise only, the worst case: any class can win anywhere.
All ways get the same logits. Ours: the softmax of four levels, fusion, and the interpolation, argmax, and counts of the fused map;
with the analysis, also those of each level alone, and of both fusions with true pyramids. PyTorch's: the softmax of the finest
level, the bilinear interpolation to the size of the image, argmax, and bincount, on as many threads as the machine has cores.
With --before, also the way that interpolates all classes at all pixels; the script checks that both of our ways count the same.

The second form times whole evaluations of a tiny network with random weights and 171 classes: files, network, and counts.
"""

import argparse
import functools
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from timing import describe_machine, print_table, times_in_turn, write_json

from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.resample import resize_labels
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.evaluation import evaluator as evaluator_lib
from pyrseg_jax.evaluation.analysis import compare_with_truth
from pyrseg_jax.evaluation.boundary import near_boundary
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.evaluation.padding import pad_view
from pyrseg_jax.evaluation.pixel_counts import count_all_classes, count_pixels
from pyrseg_jax.evaluation.pixels import padded_pixels
from pyrseg_jax.evaluation.predict import fuse_pyramids
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.segmenter import build_segmenter

STRIDES = (32, 16, 8, 4)
VOID = 255


def main() -> None:
    """Parse the arguments, time, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of COCO-Stuff 10K, or of a part of it")
    parser.add_argument("--classes", default="21,150,171")
    parser.add_argument("--kinds", default="trained,noise")
    parser.add_argument("--images", type=int)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--before", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dataset = open_dataset("coco_stuff10k", options.root, None)
    source, space = dataset.open_split("test"), dataset.label_space
    if options.whole:
        found = {
            "whole": time_evaluations(
                source, space, options.images or 40, options.batch, options.rounds, options.before
            )
        }
        rows = [(name, *row) for name, row in summarize(found["whole"], "without analysis").items()]
        print_table(
            ("171 classes, whole evaluation", "s per image", "times without analysis (lowest to highest)"), rows
        )
    else:
        labels = [decode_pair(source[i], space).label for i in range(len(source))]
        labels = [label for label in labels if label.shape == (480, 640)][: options.images or 4]
        found, rows = {}, []
        for num_classes in map(int, options.classes.split(",")):
            for kind in options.kinds.split(","):
                times = time_counts(num_classes, kind, labels, options.rounds, options.before)
                found[f"{num_classes} {kind}"] = times
                rows += [(num_classes, kind, name, *row) for name, row in summarize(times, "PyTorch's way").items()]
        print_table(("classes", "logits", "way", "s per image", "times PyTorch (lowest to highest)"), rows)
    print(describe_machine())
    write_json(options.json, found)


def summarize(times: dict[str, list[float]], base: str) -> dict[str, tuple[str, str]]:
    """Return the median seconds per image of each way, and its ratio to the base, from lowest to highest of all rounds."""
    result = {}
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times[base], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        result[name] = f"{statistics.median(seconds):.4f}", spread
    return result


def time_counts(
    num_classes: int, kind: str, labels: list[np.ndarray], rounds: int, has_before: bool
) -> dict[str, list[float]]:
    """Time the ways from logits to counts; returns the seconds per image of every round."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    rng = np.random.default_rng(0)
    labels = [np.where(label == VOID, VOID, label % num_classes).astype(np.uint8) for label in labels]
    semantic = [
        np.stack([make_logits(label, num_classes, kind, stride, rng) for label in labels]) for stride in STRIDES
    ]
    unity = [np.stack([make_unity(label, stride, rng) for label in labels]) for stride in STRIDES[:-1]]
    padded = padded_pixels(labels[0].size)
    flat = np.stack([np.pad(label.ravel(), (0, padded - label.size), constant_values=VOID) for label in labels])
    near = np.stack([np.pad(near_boundary(label).ravel(), (0, padded - label.size)) for label in labels])
    sizes = np.array([label.shape for label in labels], np.int32)
    arrays = jax.device_put((semantic, unity, np.stack(labels), flat, near, sizes))

    @functools.partial(jax.jit, static_argnames=("count", "is_analyzed"))
    def ours(semantic, unity, truth, *pixels, count, is_analyzed):
        prediction = fuse_pyramids(list(map(jax.nn.softmax, semantic)), list(map(jax.nn.sigmoid, unity)), 0.5)
        view = pad_view(prediction, jnp.zeros(len(truth), bool))
        return count([view], compare_with_truth(prediction, truth, 0.5)[0] if is_analyzed else None, *pixels)[0]

    finest = torch.from_numpy(semantic[-1].transpose(0, 3, 1, 2).copy())
    truths = [torch.from_numpy(label.astype(np.int64)) for label in labels]

    def pytorch():
        total = torch.zeros(num_classes**2 + 1, dtype=torch.int64)
        for logits, truth in zip(finest, truths, strict=True):
            probs = torch.softmax(logits, 0)[None]
            probs = torch.nn.functional.interpolate(probs, size=truth.shape, mode="bilinear", align_corners=False)[0]
            pair = torch.where(truth == VOID, num_classes**2, truth * num_classes + probs.argmax(0))
            total += torch.bincount(pair.ravel(), minlength=num_classes**2 + 1)
        return total

    results = {}
    ways = {"now": (count_pixels, False), "now, with analysis": (count_pixels, True)}
    if has_before:
        ways |= {"before": (count_all_classes, False), "before, with analysis": (count_all_classes, True)}

    def run(name):
        count, is_analyzed = ways[name]
        results[name] = jax.block_until_ready(ours(*arrays, count=count, is_analyzed=is_analyzed))

    runs = {name: functools.partial(run, name) for name in ways} | {"PyTorch's way": pytorch}
    times = times_in_turn(runs, rounds, pause_s=0.2)
    for before in ways if has_before else ():
        now = results[before.replace("before", "now")]
        assert all((now[key] == count).all() for key, count in results[before].items()), "the counts differ"
    return {name: [s / len(labels) for s in seconds] for name, seconds in times.items()}


def make_logits(label: np.ndarray, num_classes: int, kind: str, stride: int, rng: np.random.Generator) -> np.ndarray:
    """Return logits (h, w, C) of one level."""
    height, width = label.shape[0] // stride, label.shape[1] // stride
    white = rng.normal(0, 1, (height, width, num_classes)).astype(np.float32)
    if kind == "noise":
        return white
    small = resize_labels(label, (label.shape[0] // 4, label.shape[1] // 4))
    logits = 0.2 * white
    for c in range(num_classes):
        share = cv2.GaussianBlur((small == c).astype(np.float32), (0, 0), 1.5)
        smooth = rng.normal(0, 1, (max(height // 4, 2), max(width // 4, 2))).astype(np.float32)
        logits[..., c] += 9 * cv2.resize(share, (width, height), interpolation=cv2.INTER_AREA)
        logits[..., c] += cv2.resize(smooth, (width, height), interpolation=cv2.INTER_CUBIC)
    return logits


def make_unity(label: np.ndarray, stride: int, rng: np.random.Generator) -> np.ndarray:
    """Return logits (h, w) of whether each cell has a single class, with noise."""
    height, width = label.shape[0] // stride, label.shape[1] // stride
    cells = label.reshape(height, stride, width, stride)
    is_unit = cells.max((1, 3)) == cells.min((1, 3))
    return (np.where(is_unit, 2, -2) + rng.normal(0, 1.2, is_unit.shape)).astype(np.float32)


class Part:
    """The first images of a source."""

    def __init__(self, source, num_images: int):
        self._source, self._num_images = source, min(num_images, len(source))

    def __len__(self) -> int:
        return self._num_images

    def __getitem__(self, index: int):
        return self._source[index]


def time_evaluations(
    source, space, num_images: int, batch_size: int, rounds: int, has_before: bool
) -> dict[str, list[float]]:
    """Time whole evaluations; returns the seconds per image of every round."""
    part = Part(source, num_images)
    model = build_segmenter(space.num_classes, backbone="hrnet_tiny", semantic_width=16, key_width=8, unity_width=8)
    variables = jax.device_put(initial_variables(model, 0))
    results = {}

    def evaluator_with(count):
        evaluator_lib.count_pixels = count
        evaluator = Evaluator(model, part, space, mesh_lib.make_mesh(data=1), Protocol(), batch_size, 0.5)
        for is_analyzed in (False, True):
            evaluator(variables, is_analyzed)  # compiles while this function is in place
        return evaluator

    ways = {"": count_pixels} | ({"before, ": count_all_classes} if has_before else {})
    evaluators = {name: evaluator_with(count) for name, count in ways.items()}

    def run(way, word):
        results[way, word] = evaluators[way](variables, word == "with")

    runs = {f"{way}{word} analysis": functools.partial(run, way, word) for way in ways for word in ("without", "with")}
    times = times_in_turn(runs, rounds, pause_s=0.2)
    for way, word in results:
        differing = [key for key in results["", word] if results["", word][key] != results[way, word][key]]
        assert set(differing) <= {"seconds"}, f"the results differ: {differing}"
    return {name: [s / len(part) for s in seconds] for name, seconds in times.items()}


if __name__ == "__main__":
    main()
