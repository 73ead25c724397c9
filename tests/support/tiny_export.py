"""An exported model of a few kilobytes: a network with two weights, for tests that need many of them."""

from pathlib import Path

import flax.linen as nn
from jaxtyping import Array, Float

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.export.write import write_export
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.segmenter import Pyramids, Segmenter

CLASSES = ("sky", "ground", "post")


class TinySegmenter(Segmenter):
    """A linear layer, `semantic_head`, on the mean of each cell."""

    def __call__(self, images: Float[Array, "n h w 3"], train: bool = False) -> Pyramids:
        """Return a pyramid of two levels."""
        means = tuple(nn.avg_pool(images, (stride, stride), (stride, stride)) for stride in self.strides)
        return Pyramids(tuple(map(self.semantic_head, means)), tuple(mean.mean(-1) for mean in means[:-1]))


def write_tiny_export(path: Path, sizes: tuple[tuple[int, int], ...] = ((16, 24),)) -> Path:
    """Write the export of a tiny network and return its path."""
    unused = nn.Dense(1)
    model = TinySegmenter(unused, unused, nn.Dense(len(CLASSES)), strides=(8, 4))
    variables = initial_variables(model, seed=0)
    write_export(path, model, variables, ade_layout(CLASSES), sizes, 0.5, {"step": 1, "initialisation": "random"})
    return path
