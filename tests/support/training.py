"""A tiny network with its optimizer, initial state and batches, and stand-ins for what a trainer works with."""

import functools
import itertools

import numpy as np

from pyrseg_jax.conventions import VOID
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.training.optimizer import OptimizerSettings, make_optimizer
from pyrseg_jax.training.schedules import poly_schedule
from pyrseg_jax.training.step import initial_state
from support.data_sets import draw_pair


@functools.cache
def tiny_model(dtype="float32"):
    return build_segmenter(3, backbone="hrnet_tiny", semantic_width=16, key_width=8, unity_width=8, dtype=dtype)


def sgd(learning_rate=0.05, steps=40, **settings):
    return make_optimizer(poly_schedule(learning_rate, steps), OptimizerSettings(**settings))


def fresh_state(optimizer, seed=0):
    variables = initial_variables(tiny_model(), seed)
    # Without training, all unity probabilities lie within rounding of the threshold ½. The order of a summation would decide
    # which cells are relabeled, and comparisons of whole runs would compare rounding errors.
    for layer in variables["params"]["unity_head"].values():
        if "bias" in layer:
            layer["kernel"] = layer["kernel"] * 30
    return initial_state(variables, optimizer)


def make_batch(seed=0, n=4, side=64, width=None):
    rng = np.random.default_rng(seed)
    pairs = [draw_pair(rng, side, width or side) for _ in range(n)]
    labels = np.stack([np.where(label == 0, VOID, label - 1) for _, label in pairs]).astype(np.uint8)
    return {"image": np.stack([image for image, _ in pairs]), "label": labels}


class Batches:
    """Batches of consecutive seeds without end; `make` makes the batch of a seed."""

    num_skipped = 0

    def __init__(self, first_step=0, make=make_batch):
        self._seeds, self._make = itertools.count(first_step), make

    def __next__(self):
        return self._make(next(self._seeds))

    def close(self):
        pass


class Record:
    """A recorder in memory: the recorded lines, the evaluated steps, early ends, and the number of saved states."""

    def __init__(self):
        self.lines, self.evaluated, self.ends, self.num_synced = [], [], [], 0

    def advance(self, step, loss):
        pass

    def write_step(self, step, values):
        self.lines.append({"step": step} | values)

    def write_evaluation(self, step, result):
        self.evaluated.append(step)

    def write_end(self, step, reason):
        self.ends.append((step, reason))

    def sync(self):
        self.num_synced += 1
