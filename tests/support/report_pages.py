"""Reports of runs that consist of results and random pyramids alone: making them needs no network."""

import html.parser
import json

import numpy as np

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.report.choice import Chosen
from pyrseg_jax.report.collect import collect
from pyrseg_jax.report.examples import make_example
from pyrseg_jax.report.page import Gallery, assemble
from pyrseg_jax.report.pyramids import thresholds_of
from pyrseg_jax.reporting.result import Result
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run.workdir import Workdir
from support.evaluated_runs import STEP, count, digests_of, draw_truth, predict, write_evaluated

NUM_IMAGES = 9
NAMES = ("sky", "ground", "post", "water", "wall")


def write_finished_run(folder, names=NAMES, num_images=NUM_IMAGES):
    """Write a run with one result, its counts, its classes, and a short record of its training; return its `Workdir`."""
    rng = np.random.default_rng(0)
    truth = draw_truth(rng, num_images, len(names))
    matrices = count(truth, predict(rng, truth, 0.6), len(names))
    write_evaluated(folder, matrices, digests_of(range(num_images)), names=list(names))
    values = config_lib.defaults()
    values.data.name, values.data.root = "folder", str(folder / "gone")
    config = config_lib.resolve(values)
    (folder / "config.json").write_text(config_lib.to_json(config))
    (folder / "classes.json").write_text(json.dumps(ade_layout(names).to_json()))
    lines = [{"step": step, "loss": 3 / step**0.5, "learning_rate": 0.01} for step in range(20, STEP + 1, 20)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 9')  # a killed run leaves such a line
    (folder / "environment.json").write_text(json.dumps({"python": "3.11", "packages": {"jax": "0.10"}, "cores": 2}))
    return Workdir(str(folder))


def draw_result(rng, names=NAMES, cells=(3, 4), num_levels=4, refinement=1, threshold=0.5):
    """Draw a prediction with random pyramids, of which the finest level may be refined."""
    factors = [2**level for level in range(num_levels)]
    factors[-1] *= refinement
    grids = [(cells[0] * factor, cells[1] * factor) for factor in factors]
    height, width = 32 * cells[0], 32 * cells[1]
    unity = [rng.random(grid).astype(np.float32) for grid in grids[:-1]]
    for probabilities in unity:  # some lie exactly at a position of the slider
        at = rng.integers(0, 101, probabilities.shape)
        probabilities[:] = np.where(rng.random(probabilities.shape) < 0.3, np.float32(at / 100), probabilities)
    return Result(
        labels=rng.integers(0, len(names), (height, width)).astype(np.uint8),
        probs=np.zeros((*grids[-1], len(names)), np.float32),
        level=np.zeros(grids[-1], np.int32),
        unity=tuple(unity),
        semantic=tuple(rng.integers(0, len(names), grid).astype(np.uint8) for grid in grids),
        strides=tuple(32 // factor for factor in factors),
        image=rng.integers(0, 255, (height, width, 3)).astype(np.uint8),
        label_space=ade_layout(names),
        threshold=threshold,
    )


def draw_truth_of(rng, result):
    """Draw a ground truth with some void pixels."""
    truth = rng.integers(0, len(result.class_names), result.labels.shape).astype(np.uint8)
    return np.where(rng.random(truth.shape) < 0.1, np.uint8(255), truth)


def make_page(folder, results, names=NAMES, image_names=None, threshold=0.5):
    """Return a report with random examples, and what it was made from."""
    workdir = write_finished_run(folder, names)
    config = config_lib.resolve(config_lib.defaults())
    collected = collect(workdir, config)
    rng, thresholds = np.random.default_rng(1), thresholds_of(threshold)
    digests = collected.run.images.digests
    image_names = image_names or [f"picture {i}" for i in range(len(results))]
    truths = [draw_truth_of(rng, result) for result in results]
    shown = [
        make_example(name, digest, result, truth, thresholds)
        for name, digest, result, truth in zip(image_names, digests, results, truths, strict=False)
    ]
    chosen = {digest: Chosen(i, "worst") for i, digest in enumerate(digests[: len(shown)])}
    return assemble(collected, Gallery(shown, chosen, thresholds=thresholds, notes=["A note."])), collected, shown


class Page(html.parser.HTMLParser):
    """A page as its elements.

    Attributes:
      elements: (tag, attributes) in their order.
      scripts: texts of the scripts by their types, "" for JavaScript.
    """

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.scripts, self._type = [], {}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._type = dict(attrs).get("type", "")

    def handle_endtag(self, tag):
        if tag == "script":
            self._type = None

    def handle_data(self, data):
        if self._type is not None:
            self.scripts[self._type] = self.scripts.get(self._type, "") + data

    def numbers(self):
        """Return (place in the JSON, exact value) of each number that stands in the evaluation."""
        return [
            (json.loads(a["data-key"]), json.loads(a["data-value"]))
            for _, a in self.elements
            if "data-key" in a and "data-value" in a
        ]


def value_at(values, key):
    """Return the value at a place of a JSON document."""
    for part in key:
        values = values[part]
    return values
