"""From logits to probabilities, and from both pyramids to one map: the only file where this happens."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import jax
from jaxtyping import Array, Float, Int32, Real, UInt

from pyrseg_jax.conventions import label_dtype
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.models.segmenter import Pyramids, Segmenter
from pyrseg_jax.pyramid import fuse


class Prediction(NamedTuple):
    """The prediction for a batch of N images. Tuples over the L levels are ordered coarse → fine.

    probs: L maps (N, h_l, w_l, C), the class probabilities of each level alone.
    fused: (N, h, w, C) class probabilities at the finest level, each taken from the level that decides the position. Where the
      network refines the finest level, h and w are those of the refined map.
    level: (N, h, w) int32, the level that decides each position; 0 is the coarsest.
    unity: L-1 maps (N, h_l, w_l), the probability that a cell is a unit-cell.
    semantic: L maps (N, h_l, w_l) uint8, or uint16 for more than 255 classes: the most likely class of each cell.
    """

    probs: tuple[Float[Array, "n _ _ c"], ...]
    fused: Float[Array, "n h w c"]
    level: Int32[Array, "n h w"]
    unity: tuple[Float[Array, "n _ _"], ...]
    semantic: tuple[UInt[Array, "n _ _"], ...]

    @property
    def refinement(self) -> int:
        """Return how often the finest level must be halved to have the size of the level before it: 1, or more if refined."""
        return (self.level.shape[1] // self.unity[-1].shape[1]).bit_length() - 1 if self.unity else 1


def predict(model: Segmenter, variables: dict, images: Real[Array, "n h w c"], threshold: float) -> Prediction:
    """Run the network on a batch and fuse its two pyramids.

    Args:
      model: the segmenter.
      variables: the parameters and batch statistics.
      images: (N, H, W, C), RGB in uint8 or as a `data.images.image_space` says; H and W are multiples of the coarsest stride.
      threshold: τ in 0 … 1, the least probability at which a cell counts as a unit-cell.
    """
    return predict_from(run(model, variables, images), threshold)


def run(model: Segmenter, variables: dict, images: Real[Array, "n h w c"]) -> Pyramids:
    """Run the network on a batch as outside of training; arguments as for `predict`."""
    return cast(Pyramids, model.apply(variables, normalize(images), False))


def predict_from(pyramids: Pyramids, threshold: float) -> Prediction:
    """Turn the network's logits into probabilities and fuse the two pyramids; `threshold` as for `predict`."""
    probs = tuple(jax.nn.softmax(logits) for logits in pyramids.semantic)
    unity = tuple(jax.nn.sigmoid(logits) for logits in pyramids.unity)
    return fuse_pyramids(probs, unity, threshold)


def fuse_pyramids(
    probs: Sequence[Float[Array, "n _ _ c"]], unity: Sequence[Float[Array, "n _ _"]], threshold: float
) -> Prediction:
    """Fuse a semantic and a unity pyramid of probabilities.

    Args:
      probs: L maps (N, h_l, w_l, C), class probabilities, coarse → fine.
      unity: L-1 maps (N, h_l, w_l), the probability that a cell is a unit-cell.
      threshold: τ in 0 … 1.

    Source: Eq. (2).
    """
    fused = fuse(probs, unity, threshold)
    semantic = tuple(p.argmax(-1).astype(label_dtype(p.shape[-1])) for p in probs)
    # The algebra's annotations allow NumPy arrays, too; what it returns is jax's.
    return Prediction(tuple(probs), fused.probs, fused.level, tuple(unity), semantic)  # pyright: ignore[reportArgumentType]
