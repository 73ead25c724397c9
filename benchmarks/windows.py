"""How much the labels of a large image depend on where the windows lie that it is segmented in.

    python benchmarks/windows.py --workdir=RUN [--image=FILE] [--mosaic=4x5] [--windows=192,256,384] [--json=FILE]

The image is FILE, or a mosaic of validation images of the run's data set, whose label maps then give the mIoU. It is segmented with
windows at two places: as `pyrseg predict --window` lays them, and moved by half a step in both directions. Rows: a side of the
windows, with tokens that all windows share or with each window's own. Columns:
  changed: pixels with another label after the move;
  inside: those of them that are farther than 2 px from every border between two classes of the first result;
  other than whole: pixels with another label than without windows;
  seconds: of the first result.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from timing import describe_machine, print_table, write_json

from pyrseg_jax.data.loading import load_pair
from pyrseg_jax.evaluation.window_model import WindowModel
from pyrseg_jax.evaluation.windows import Windows
from pyrseg_jax.run.data_checks import open_data_of_run
from pyrseg_jax.run.predictor import read_image
from pyrseg_jax.run.trained_predictor import load_predictor
from pyrseg_jax.run.workdir import Workdir

NEAR_PX = 2


class OwnTokens:
    """A model in which each window has its own tokens."""

    has_tokens = False

    def __init__(self, model: WindowModel):
        self.stride, self.coarsest_stride, self.is_scaled = model.stride, model.coarsest_stride, model.is_scaled
        self.predict, self.collect = model.predict, model.collect


def mosaic_of(source, space, shape: tuple[int, int], multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """Put the first images of a split side by side, cut to one size; return image and label map."""
    pairs = [load_pair(source, index, space)[1] for index in range(shape[0] * shape[1])]
    height, width = (min(pair.label.shape[axis] for pair in pairs) // multiple * multiple for axis in (0, 1))
    joined = [
        np.concatenate([np.concatenate(row, 1) for row in _rows(parts, shape[1])])
        for parts in (
            [pair.image[:height, :width] for pair in pairs],
            [pair.label[:height, :width] for pair in pairs],
        )
    ]
    return joined[0], joined[1]


def _rows(parts: list[np.ndarray], length: int) -> list[list[np.ndarray]]:
    return [parts[first : first + length] for first in range(0, len(parts), length)]


def near_borders(labels: np.ndarray) -> np.ndarray:
    """Return which pixels lie within 2 px of a border between two classes."""
    is_border = np.zeros(labels.shape, np.uint8)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = labels[one] != labels[other]
        is_border[one] |= differs
        is_border[other] |= differs
    side = 2 * NEAR_PX - 1
    return cv2.dilate(is_border, np.ones((side, side), np.uint8)).astype(bool)


def miou(labels: np.ndarray, truth: np.ndarray, num_classes: int) -> float:
    """Return the mean IoU over the classes that occur."""
    known = truth < num_classes
    pairs = num_classes * truth[known].astype(int) + labels[known]
    counts = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return float(100 * (counts.diagonal()[union > 0] / union[union > 0]).mean())


def segment(model: WindowModel, image: np.ndarray, window: int, shift: int = 0) -> np.ndarray:
    """Return the label map of an image in windows."""
    windows = Windows(model, lambda top, bottom: image[top:bottom], image.shape[:2], window, (shift, shift))
    return np.concatenate([strip.labels for strip in windows.predict()])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--mosaic", default="4x5", help="rows and columns of validation images")
    parser.add_argument("--windows", default="192,256,384")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    workdir = Workdir(options.workdir)
    config, space = workdir.read_config(), workdir.read_label_space()
    predictor, _ = load_predictor(config, workdir)
    model, truth = predictor.windows(has_confidence=False), None
    if options.image:
        image = read_image(options.image, predictor.image_space)
    else:
        shape = tuple(map(int, options.mosaic.split("x")))
        source = open_data_of_run(config, workdir).open_split("validation")
        image, truth = mosaic_of(source, space, (shape[0], shape[1]), model.coarsest_stride)
    whole = segment(model, image, max(image.shape[:2]) + model.coarsest_stride)
    rows = []
    for window in map(int, options.windows.split(",")):
        for tokens, one in (("own", OwnTokens(model)), *([("shared", model)] if model.has_tokens else [])):
            segment(one, image[: 2 * window, : 2 * window], window)  # compiles
            start = time.perf_counter()
            first = segment(one, image, window)
            seconds = time.perf_counter() - start
            step = window // 2 // model.coarsest_stride * model.coarsest_stride
            moved = segment(one, image, window, max(step // 2, model.coarsest_stride))
            changed = first != moved
            rows.append({
                "window": window,
                "tokens": tokens,
                "changed %": round(100 * changed.mean(), 3),
                "inside %": round(100 * (changed & ~near_borders(first)).mean(), 3),
                "other than whole %": round(100 * (first != whole).mean(), 2),
                "mIoU": None if truth is None else round(miou(first, truth, space.num_classes), 2),
                "seconds": round(seconds, 1),
            })  # fmt: skip
    about = f"{image.shape[1]} × {image.shape[0]} pixels, context {config.model.context}; {describe_machine()}"
    if truth is not None:
        about += f"; mIoU without windows {miou(whole, truth, space.num_classes):.2f}"
    print(f"\n{about}\n")
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    write_json(options.json, {"about": about, "rows": rows})


if __name__ == "__main__":
    main()
