"""What the pyramid saves at inference, if finer levels are left out where coarser ones have decided: accuracy against time.

    python benchmarks/parsimony.py --workdir=RUN [--root=DATA] [--limit=101] [--rounds=7] [--thresholds=0.3,0.5,0.7,0.9]
        [--json=FILE]

The first table has the milliseconds of the network for one image: the backbone alone, and the network up to each level. XLA leaves
out what finer levels need and coarser ones do not. All programs take turns, and the medians and the ranges are printed.

The second table has a row per threshold τ and rule. Early exit: an image is done after the first level that leaves at most the
given share of its positions open, and this level decides them. The rule "whole" has no exit. Columns:
  mIoU: of the split, with each image as it comes out;
  left after level: the share of images that exit there;
  ms: mean time of the network, from the first table; the steps from one level to the next cost nothing here;
  times: of the whole network, divided by ms.
The third table is a bound for every way to skip cells: each level above the backbone costs its share of open positions, and
gathering them is free. No implementation can save more.
"""

import argparse
from pathlib import Path

import cv2
import jax
import numpy as np
from timing import describe_machine, print_table, ready, times_in_turn, write_json

from pyrseg_jax.data.loading import load_pair
from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.evaluation.metrics import scores
from pyrseg_jax.evaluation.predict import run
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.pyramid import fuse
from pyrseg_jax.pyramid.levels import nearest_multiple
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run.data_checks import open_data_of_run
from pyrseg_jax.run.networks import make_model
from pyrseg_jax.run.trained_predictor import load_predictor
from pyrseg_jax.run.workdir import Workdir

OPEN_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 1.0)  # 1: every image exits after the coarsest level


def partial_networks(model, variables) -> dict[str, object]:
    """Return a jitted function per part: the backbone alone, and the network up to each level."""

    def up_to(level):
        @jax.jit
        def network(images):
            pyramids = run(model, variables, images)
            probs = tuple(jax.nn.softmax(logits) for logits in pyramids.semantic[:level])
            # Level l is taken where no coarser cell is a unit-cell, so up to level l there are l - 1 maps of the unity pyramid.
            # To know what is open after level l, its own map is needed, too.
            return probs, tuple(jax.nn.sigmoid(logits) for logits in pyramids.unity[:level])

        return network

    @jax.jit
    def backbone(images):
        return model.apply(variables, normalize(images), method=lambda model, x: model.backbone(x, False).final)

    levels = len(model.prediction_strides)
    return {"backbone": backbone} | {f"level {level}": up_to(level) for level in range(1, levels + 1)}


def open_after(unity, threshold: float) -> list[float]:
    """Return the share of positions that are open after each level; 0 after the finest."""
    is_open, shares = np.ones(unity[0].shape, bool), []
    for cells in unity:
        factor = cells.shape[1] // is_open.shape[1]
        is_open = is_open.repeat(factor, 1).repeat(factor, 2) & (cells < threshold)
        shares.append(float(is_open.mean()))
    return [*shares, 0.0]


def classes_at(probs: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the class of each pixel of a label map, from probabilities (h, w, C)."""
    return cv2.resize(probs, shape[::-1], interpolation=cv2.INTER_LINEAR).argmax(-1)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--root", help="the data set, if it is not where the run found it")
    parser.add_argument("--limit", type=int, default=1000, help="images of the validation split at most")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--thresholds", default="0.3,0.5,0.7,0.9")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    workdir = Workdir(options.workdir)
    config, space = workdir.read_config(), workdir.read_label_space()
    if options.root:
        config = config_lib.changed(config, {"data.root": options.root})
    model = make_model(config, space)
    if model.num_predicted_levels == 1:
        raise SystemExit(f"{options.workdir} predicts no pyramid: name a run whose model.representation is pyramid")
    variables = load_predictor(config, workdir)[1].variables
    source = open_data_of_run(config, workdir).open_split("validation")
    count = min(len(source), options.limit)
    pairs = [load_pair(source, index, space)[1] for index in range(count)]
    networks, multiple = partial_networks(model, variables), model.strides[0]
    inputs = [
        resize_image(image, (nearest_multiple(image.shape[0], multiple), nearest_multiple(image.shape[1], multiple)))
        for image in (pair.image for pair in pairs)
    ]
    times = times_in_turn({name: ready(part, inputs[0][None]) for name, part in networks.items()}, options.rounds)
    ms = {name: 1e3 * float(np.median(found)) for name, found in times.items()}
    print(f"\n{count} images of {inputs[0].shape[1]} × {inputs[0].shape[0]} pixels; {describe_machine()}\n")
    whole = ms[f"level {len(model.strides)}"]
    print_table(
        ["part", "ms", "lowest … highest", "share of the whole"],
        [
            [name, f"{ms[name]:.1f}", f"{1e3 * min(found):.1f} … {1e3 * max(found):.1f}", f"{ms[name] / whole:.2f}"]
            for name, found in times.items()
        ],
    )
    outputs = [jax.device_get(networks[f"level {len(model.strides)}"](image[None])) for image in inputs]
    exits, bounds = [], []
    for threshold in map(float, options.thresholds.split(",")):
        found = [rows_of(outputs, pairs, space, threshold, rule, ms) for rule in (None, *OPEN_SHARES)]
        exits += found
        bounds.append(bound_of(outputs, threshold, ms))
    print()
    print_table(list(exits[0]), [list(row.values()) for row in exits])
    print()
    print_table(list(bounds[0]), [list(row.values()) for row in bounds])
    write_json(options.json, {"ms": ms, "exits": exits, "bounds": bounds})


def rows_of(outputs, pairs, space, threshold: float, rule: float | None, ms: dict[str, float]) -> dict:
    """Score a threshold and a rule; return a row of the second table."""
    levels = len(outputs[0][0])
    confusion, left = np.zeros((space.num_classes,) * 2, np.int64), np.zeros(levels, int)
    for (probs, unity), pair in zip(outputs, pairs, strict=True):
        shares = open_after(unity, threshold)
        last = levels - 1 if rule is None else next(i for i, share in enumerate(shares) if share <= rule)
        left[last] += 1
        fused = np.asarray(fuse(probs[: last + 1], unity[:last], threshold).probs[0])
        found, known = classes_at(fused, pair.label.shape), pair.label < space.num_classes
        pairs_of = space.num_classes * pair.label[known].astype(int) + found[known]
        confusion += np.bincount(pairs_of, minlength=confusion.size).reshape(confusion.shape)
    mean_ms = sum(n * ms[f"level {level}"] for level, n in enumerate(left, 1)) / left.sum()
    return {
        "τ": threshold,
        "exit at open": "whole" if rule is None else f"≤ {100 * rule:.0f} %",
        "mIoU": f"{100 * scores(confusion, space.names)['miou']:.2f}",
        "left after level": " / ".join(f"{100 * n / left.sum():.0f} %" for n in left),
        "ms": f"{mean_ms:.1f}",
        "times": f"{ms[f'level {levels}'] / mean_ms:.2f}",
    }


def bound_of(outputs, threshold: float, ms: dict[str, float]) -> dict:
    """Return a row of the third table."""
    shares = np.mean([[1.0, *open_after(unity, threshold)[:-1]] for _, unity in outputs], 0)
    names = ["backbone", *(f"level {level}" for level in range(1, len(shares) + 1))]
    steps = [max(ms[after] - ms[before], 0.0) for before, after in zip(names, names[1:])]
    least = ms["backbone"] + float(np.dot(shares, steps))
    return {
        "τ": threshold,
        "open before level": " / ".join(f"{100 * share:.0f} %" for share in shares),
        "ms at least": f"{least:.1f}",
        "times at most": f"{ms[names[-1]] / least:.2f}",
    }


if __name__ == "__main__":
    main()
