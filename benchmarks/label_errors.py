"""Find damaged label maps: AUROC of the ranking of `pyrseg rank`, and of simpler signals beside it.

    python benchmarks/label_errors.py --workdir=runs/scenes [--split=validation] [--limit=64] [--draws=200] [--json=FILE]

Each label map of the split is damaged in four ways, one at a time:
  exchanged: two classes change places in the whole image;
  relabeled: one connected region of at least 0.5 % of the image gets another class of the data set;
  shifted: the map is moved by 6 … 12 pixels, and its border repeats;
  erased: an object of a class that is not stuff gets the class around it.
The AUROC is the probability that a damaged map scores higher than a whole one. `5 %` draws that share of the images, damages each in
one of the four ways, ranks all images, and averages the AUROC over the draws. The network was trained on whole label maps.

The second table is about pixels instead of labels: how well a map finds the pixels that the network predicts wrongly.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from timing import describe_machine, print_table, write_json

from pyrseg_jax.data.loading import load_pair
from pyrseg_jax.data.threads import THREADS, ordered_map
from pyrseg_jax.evaluation.label_errors import MOST_DOUBT, WINDOW_SHARE, find_regions, pair_counts, reweighted, score_of
from pyrseg_jax.run.data_checks import open_data_of_run
from pyrseg_jax.run.trained_predictor import load_predictor
from pyrseg_jax.run.workdir import Workdir

SHARE, LEVELS = 0.05, 256
MIN_REGION, MIN_OBJECT = 0.005, 0.002  # shares of the pixels of an image


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
    objects = regions_of(label, things, MIN_OBJECT)
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


def signals_of(found, truth, num_classes) -> dict:
    """Return the score of one label map by each signal; for the ranking, its regions, which are scored at the end."""
    side = max(3, min(truth.shape) // WINDOW_SHARE | 1)
    doubt = np.minimum(found.doubt, MOST_DOUBT)
    window = lambda x: float(cv2.boxFilter(x, -1, (side, side), borderType=cv2.BORDER_REFLECT).max())  # noqa: E731
    return {
        "ranking": find_regions(truth, found.labels, found.doubt, found.confidence, num_classes),
        "doubt × (1 - entropy)": window(doubt * (1 - found.entropy)),
        "doubt × (1 - disagreement)": window(doubt * (1 - found.disagreement)),
        "mean doubt": float(doubt.mean()),
        "share of other labels": float(((truth != found.labels) & (truth < num_classes)).mean()),
        "entropy alone": float(found.entropy.mean()),
        "disagreement alone": float(found.disagreement.mean()),
    }


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
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    workdir = Workdir(options.workdir)
    config = workdir.read_config()
    source = open_data_of_run(config, workdir).open_split(options.split)
    predictor, _ = load_predictor(config, workdir)
    space, rng = predictor.label_space, np.random.default_rng(options.seed)
    whole: list[dict] = []
    damaged: dict[str, dict[int, dict]] = {name: {} for name in DAMAGES}
    histograms = {name: np.zeros((2, LEVELS)) for name in ("1 - confidence", "entropy", "disagreement")}
    counts = np.zeros((space.num_classes,) * 2, np.int64)
    indices = range(min(options.limit, len(source)))
    for index, (_, pair) in enumerate(ordered_map(lambda i: load_pair(source, i, space), indices, THREADS)):
        found = predictor.measure(pair.image, pair.label)()
        whole.append(signals_of(found, pair.label, space.num_classes))
        counts += pair_counts(pair.label, found.labels, space.num_classes)
        count_pixels(histograms, found, pair.label, space.num_classes)
        for name, damage in DAMAGES.items():
            label = damage(pair.label, rng, space)
            if label is not None:
                measured = predictor.measure(pair.image, label)()
                damaged[name][index] = signals_of(measured, label, space.num_classes)
    report(options, whole, damaged, histograms, counts, rng)


def count_pixels(histograms: Mapping, found, label, num_classes) -> None:
    """Count the pixels of one image by their value in each map, right and wrong ones."""
    is_labeled = label < num_classes
    maps = {"1 - confidence": 1 - found.confidence, "entropy": found.entropy, "disagreement": found.disagreement}
    for name, values in maps.items():
        for row, mask in enumerate((found.labels != label, found.labels == label)):
            at = np.clip(values[mask & is_labeled] * LEVELS, 0, LEVELS - 1).astype(int)
            histograms[name][row] += np.bincount(at, minlength=LEVELS)


def report(options, whole, damaged, histograms, counts, rng) -> None:
    """Print the tables, and write the JSON."""
    score = {"ranking": lambda regions: score_of(reweighted(regions, counts))}
    value = lambda signals, name: score.get(name, float)(signals[name])  # noqa: E731
    rows, numbers = [], {}
    for name in whole[0]:
        clean = [value(signals, name) for signals in whole]
        bad = {kind: {i: value(signals, name) for i, signals in found.items()} for kind, found in damaged.items()}
        found = {kind: auroc(list(scores.values()), clean) for kind, scores in bad.items()}
        draws = [draw(np.random.default_rng(options.seed + i), clean, bad) for i in range(options.draws)]
        found |= {
            "all": auroc([v for scores in bad.values() for v in scores.values()], clean),
            "5 %": float(np.mean(draws)),
        }
        rows.append([name, *(f"{found[kind]:.3f}" for kind in found)])
        numbers[name] = found
    print(describe_machine())
    print_table(["signal", *DAMAGES, "all", "5 %"], rows)
    pixels = {name: auroc_of_counts(*rows) for name, rows in histograms.items()}
    print_table(["map", "AUROC of wrong pixels"], [[name, f"{found:.3f}"] for name, found in pixels.items()])
    if options.json is not None:
        write_json(options.json, {"images": len(whole), "labels": numbers, "pixels": pixels})


def draw(rng, clean, bad) -> float:
    """Damage 5 % of the images, each in one way, and return the AUROC of the ranking of all images."""
    chosen = rng.choice(len(clean), max(1, round(SHARE * len(clean))), replace=False)
    scores = []
    for i in chosen:
        kinds = [kind for kind in bad if i in bad[kind]]
        scores.append(bad[kinds[rng.integers(len(kinds))]][i])
    return auroc(scores, np.delete(clean, chosen))


if __name__ == "__main__":
    main()
