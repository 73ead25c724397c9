"""An exported model of a few kilobytes: a network with two weights, for tests that need many of them."""

from pathlib import Path
from typing import cast

import flax.linen as nn
import jax.numpy as jnp
from pyrseg_jax.export.write import write_export

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.segmenter import Pyramids, Segmenter

CLASSES = ("sky", "ground", "post")


class TinySegmenter(nn.Module):
    """One linear layer on the mean of each cell; it has the interface of `Segmenter`."""

    strides: tuple[int, ...] = (8, 4)
    num_classes: int = len(CLASSES)

    @nn.compact
    def __call__(self, images, train: bool = False) -> Pyramids:
        """Return a pyramid of two levels."""
        means = tuple(nn.avg_pool(images, (stride, stride), (stride, stride)) for stride in self.strides)
        classify = nn.Dense(self.num_classes, name="semantic")
        unity = tuple(mean.mean(-1) for mean in means[:-1])
        return Pyramids(tuple(classify(mean) for mean in means), unity, None, {})


def write_tiny_export(path: Path, sizes: tuple[tuple[int, int], ...] = ((16, 24),)) -> Path:
    """Write the export of a tiny network and return its path."""
    model = cast(Segmenter, TinySegmenter())
    variables = initial_variables(model, seed=0)
    variables = {"params": {"semantic": {name: jnp.asarray(a) for name, a in variables["params"]["semantic"].items()}}}
    write_export(path, model, variables, ade_layout(CLASSES), sizes, 0.5, {"step": 1, "initialisation": "random"})
    return path
