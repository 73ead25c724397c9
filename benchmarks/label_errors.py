"""Find damaged label maps: AUROC of the ranking of `pyrseg rank`, and of simpler signals beside it.

    python benchmarks/label_errors.py --workdir=runs/scenes [--split=validation] [--limit=64] [--draws=20]
        [--protocol=NAME] [--json=FILE]

Each label map of the split is damaged in four ways, one at a time:
  exchanged: two classes change places in the whole image;
  relabeled: one connected region of at least 0.5 % of the image gets another class of the data set;
  shifted: the map is moved by 6 … 12 pixels, and its border repeats;
  erased: an object of a class that is not stuff, and of at least 0.5 % of the image, gets the class around it.
The AUROC is the probability that a damaged map scores higher than a whole one. `5 %` draws that share of the images, damages each
in one of the four ways, ranks all images, and averages the AUROC over the draws. The network was trained on whole label maps.

The second table is about pixels instead of labels: how well a map finds the pixels that the network predicts wrongly.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from timing import describe_machine, print_table, write_json

from pyrseg_jax.data.loading import load_pair
from pyrseg_jax.data.threads import THREADS, ordered_map
from pyrseg_jax.evaluation.label_errors import Evidence, find_evidence, pair_counts, score_images, surprise_of
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run.data_checks import open_data_of_run
from pyrseg_jax.run.trained_predictor import load_predictor
from pyrseg_jax.run.workdir import Workdir

SHARE, LEVELS = 0.05, 256
MIN_REGION = 0.005  # share of the pixels of an image


def exchanged(label, rng, space):
    """Exchange two classes that each have at least 1 % of the image."""
    counts = np.bincount(label.ravel(), minlength=space.void + 1)[: space.num_classes]
    classes = np.flatnonzero(counts >= 0.01 * label.size)
    if len(classes) < 2:
        return None
    one, other = rng.choice(classes, 2, replace=False)
    return np.select([label == one, label == other], [other, one], label).astype(label.dtype)


def relabeled(label, rng, space):
    """Give one region another class."""
    regions = regions_of(label, range(space.num_classes), MIN_REGION)
    if not regions:
        return None
    train_id, mask = regions[rng.integers(len(regions))]
    found = label.copy()
    found[mask] = rng.choice([c for c in range(space.num_classes) if c != train_id])
    return found


def shifted(label, rng, space):
    """Move the map by 6 … 12 pixels."""
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(6, 12)
    down, right = round(length * np.sin(angle)), round(length * np.cos(angle))
    rows, columns = (np.clip(np.arange(side) - by, 0, side - 1) for side, by in zip(label.shape, (down, right)))
    return label[rows[:, None], columns]


def erased(label, rng, space):
    """Give an object the most frequent class of its rim."""
    things = [c for c in range(space.num_classes) if not space.is_stuff[c]]
    objects = regions_of(label, things, MIN_REGION)
    if not objects:
        return None
    _, mask = objects[rng.integers(len(objects))]
    rim = (
        cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~mask & (label < space.num_classes)
    )
    if not rim.any():
        return None
    found = label.copy()
    found[mask] = np.bincount(label[rim]).argmax()
    return found


DAMAGES = {"exchanged": exchanged, "relabeled": relabeled, "shifted": shifted, "erased": erased}


def regions_of(label, classes, least_share):
    """Return (train id, mask) of the connected regions of some classes with at least this share of the image."""
    found = []
    for train_id in classes:
        count, components, stats, _ = cv2.connectedComponentsWithStats((label == train_id).astype(np.uint8))
        found += [
            (train_id, components == i)
            for i in range(1, count)
            if stats[i, cv2.CC_STAT_AREA] >= least_share * label.size
        ]
    return found


class Labels(NamedTuple):
    """A label map and what the network says about it.

    counts: pairs of label and prediction.
    entropy, disagreement: means over the image.
    """

    truth: np.ndarray
    predicted: np.ndarray
    doubt: np.ndarray
    confidence: np.ndarray
    counts: np.ndarray
    entropy: float
    disagreement: float

    @classmethod
    def of(cls, found, truth, num_classes) -> "Labels":
        """Keep what is needed of a measurement."""
        means = float(found.entropy.mean()), float(found.disagreement.mean())
        counts = pair_counts(truth, found.labels, num_classes)
        return cls(
            truth, found.labels, found.doubt.astype(np.float16), found.confidence.astype(np.float16), counts, *means
        )

    def evidence(self, counts) -> Evidence:
        """Return the evidence against the labels, given the counts of the split."""
        maps = self.doubt.astype(np.float32), self.confidence.astype(np.float32)
        return find_evidence(self.truth, self.predicted, *maps, surprise_of(counts))


SIMPLE = {
    "mean doubt": lambda labels: labels.doubt.mean(dtype=np.float64),
    "share of other labels": lambda labels: ((labels.truth != labels.predicted) & (labels.doubt > 0)).mean(),
    "entropy alone": lambda labels: labels.entropy,
    "disagreement alone": lambda labels: labels.disagreement,
}


def ranked(labels) -> list[float]:
    """Return the score of each image of a split, as `pyrseg rank` does."""
    counts = sum(one.counts for one in labels)
    return [score for score, _ in score_images([one.evidence(counts) for one in labels])]


def auroc(positive, negative) -> float:
    """Return the probability that a positive scores above a negative; ties count half."""
    positive, negative = np.asarray(positive)[:, None], np.asarray(negative)[None]
    return float((positive > negative).mean() + (positive == negative).mean() / 2)


def auroc_of_counts(wrong, right) -> float:
    """Return the AUROC from histograms of the same bins."""
    below = np.concatenate([[0], np.cumsum(right)[:-1]])
    return float((wrong * (below + right / 2)).sum() / (wrong.sum() * right.sum()))


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--protocol", default="single")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    workdir = Workdir(options.workdir)
    config = config_lib.changed(workdir.read_config(), {"evaluation.protocol": options.protocol})
    source = open_data_of_run(config, workdir).open_split(options.split)
    predictor, _ = load_predictor(config, workdir)
    space, rng = predictor.label_space, np.random.default_rng(options.seed)
    whole: list[Labels] = []
    damaged: dict[str, dict[int, Labels]] = {name: {} for name in DAMAGES}
    histograms = {name: np.zeros((2, LEVELS)) for name in ("1 - confidence", "entropy", "disagreement")}
    indices = range(min(options.limit, len(source)))
    for index, (_, pair) in enumerate(ordered_map(lambda i: load_pair(source, i, space), indices, THREADS)):
        found = predictor.measure(pair.image, pair.label)()
        whole.append(Labels.of(found, pair.label, space.num_classes))
        count_pixels(histograms, found, pair.label, space.num_classes)
        for name, damage in DAMAGES.items():
            label = damage(pair.label, rng, space)
            if label is not None:
                measured = predictor.measure(pair.image, label)()
                damaged[name][index] = Labels.of(measured, label, space.num_classes)
    report(options, whole, damaged, histograms)


def count_pixels(histograms: Mapping, found, label, num_classes) -> None:
    """Count the pixels of one image by their value in each map, right and wrong ones."""
    is_labeled = label < num_classes
    maps = {"1 - confidence": 1 - found.confidence, "entropy": found.entropy, "disagreement": found.disagreement}
    for name, values in maps.items():
        for row, mask in enumerate((found.labels != label, found.labels == label)):
            at = np.clip(values[mask & is_labeled] * LEVELS, 0, LEVELS - 1).astype(int)
            histograms[name][row] += np.bincount(at, minlength=LEVELS)


def report(options, whole, damaged, histograms) -> None:
    """Print the tables, and write the JSON."""
    draws = [draw(np.random.default_rng(options.seed + i), whole, damaged) for i in range(options.draws)]
    numbers = {"ranking": of_kinds(*one_at_a_time(whole, damaged)) | {"5 %": float(np.mean(draws))}}
    for name, score in SIMPLE.items():
        clean = [score(labels) for labels in whole]
        numbers[name] = of_kinds({kind: [score(x) for x in found.values()] for kind, found in damaged.items()}, clean)
    rows = [[name, *(f"{value:.3f}" for value in found.values())] for name, found in numbers.items()]
    print(describe_machine())
    print_table(["signal", *DAMAGES, "all", "5 %"], [[*row, "–"][: len(DAMAGES) + 3] for row in rows])
    pixels = {name: auroc_of_counts(*rows) for name, rows in histograms.items()}
    print_table(["map", "AUROC of wrong pixels"], [[name, f"{found:.3f}"] for name, found in pixels.items()])
    if options.json is not None:
        write_json(options.json, {"images": len(whole), "labels": numbers, "pixels": pixels})


def of_kinds(bad, clean) -> dict[str, float]:
    """Return the AUROC of each kind of damage, and of all together."""
    return {kind: auroc(scores, clean) for kind, scores in bad.items()} | {"all": auroc(sum(bad.values(), []), clean)}


def one_at_a_time(whole, damaged) -> tuple[dict[str, list[float]], list[float]]:
    """Return the scores of damaged label maps, each among the whole ones of the other images, and those of whole ones."""
    counts = sum(one.counts for one in whole)
    evidence = [one.evidence(counts) for one in whole]
    bad = {}
    for kind, found in damaged.items():
        bad[kind] = []
        for index, labels in found.items():
            own = labels.evidence(counts - whole[index].counts + labels.counts)
            bad[kind].append(score_images([*evidence[:index], own, *evidence[index + 1 :]])[index][0])
    return bad, [score for score, _ in score_images(evidence)]


def draw(rng, whole, damaged) -> float:
    """Damage 5 % of the images, each in one way, and return the AUROC of the ranking of all images."""
    chosen = rng.choice(len(whole), max(1, round(SHARE * len(whole))), replace=False)
    labels = list(whole)
    for i in chosen:
        kinds = [kind for kind in damaged if i in damaged[kind]]
        labels[i] = damaged[kinds[rng.integers(len(kinds))]][i]
    scores = ranked(labels)
    return auroc([scores[i] for i in chosen], np.delete(scores, chosen))


if __name__ == "__main__":
    main()
