"""Training objectives: build targets from the label map, specialize them with the prediction, and compute the loss."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Float, Int32, UInt8

from pyrseg_jax.models.resample import resize
from pyrseg_jax.models.segmenter import Pyramids
from pyrseg_jax.pyramid import build_targets, pyramid_loss, specialize
from pyrseg_jax.pyramid.levels import Array
from pyrseg_jax.pyramid.losses import masked_cross_entropy
from pyrseg_jax.training.losses import ohem_targets

Loss = tuple[Float[Array, ""], dict[str, Float[Array, ""]]]
# The size at which per-pixel logits are compared with the label map.
SUPERVISIONS = {
    "finest": "sample the labels at the positions of the finest level",
    "full_size": "interpolate the logits to the size of the label map, as the other methods of Table 1 do",
}


@dataclasses.dataclass(frozen=True)
class PyramidObjective:
    """The paper's training objective.

    Attributes:
      strides: strides of the levels in pixels, coarse → fine.
      procedure: `"tp"`, `"gt"` or `"raw"`; see `pyramid.specialize`.
      threshold: τ, 0 … 1; a cell with at least this unity probability counts as predicted unit-cell.
      void: the treatment of void pixels; see `pyramid.build_targets`.

    Source: Sec. 3.1, Eq. (1).
    """

    strides: Sequence[int] = (32, 16, 8, 4)
    procedure: str = "tp"
    threshold: float = 0.5
    void: str = "agree"

    def __call__(self, predicted: Pyramids, labels: UInt8[Array, "n h w"]) -> Loss:
        """Return the loss of a batch, and its terms by name."""
        targets = build_targets(labels, self.strides, self.void)
        targets = specialize(targets, predicted.unity, self.procedure, self.threshold)
        return pyramid_loss(predicted.semantic, predicted.unity, targets)


@dataclasses.dataclass(frozen=True)
class PerPixelObjective:
    """Cross entropy of a class per position, averaged over the predicted levels (rows A, B, C and I of Table 2a).

    Attributes:
      supervision: one of `SUPERVISIONS`.
      ohem_threshold: probability of the true class below which a position is learned from; None uses all positions.
      ohem_min_kept: number of positions of the batch to learn from at least.

    Chosen: in row I, each coarser level learns from the label map downsampled to its stride, in the same way as the finest
      level, and all levels have the same weight, as in Eq. (1).
    """

    supervision: str = "finest"
    ohem_threshold: float | None = None
    ohem_min_kept: int = 0

    def __call__(self, predicted: Pyramids, labels: UInt8[Array, "n h w"]) -> Loss:
        """Return the loss of a batch, and its terms by name."""
        losses = [self._cross_entropy(logits, labels) for logits in predicted.semantic]
        semantic = sum(losses[1:], losses[0]) / len(losses)
        terms = {"semantic": semantic}
        if len(losses) > 1:
            terms |= {f"semantic_{level}": value for level, value in enumerate(losses, 1)}
        return semantic, terms

    def _cross_entropy(self, logits: Float[Array, "n h w c"], labels: UInt8[Array, "n H W"]) -> Float[Array, ""]:
        logits, classes = fit_to_labels(logits, labels, self.supervision)
        if self.ohem_threshold is not None:
            classes = ohem_targets(logits, classes, self.ohem_threshold, self.ohem_min_kept)
        return masked_cross_entropy(logits, classes)


@dataclasses.dataclass(frozen=True)
class WithAuxiliary:
    """Another objective plus the weighted cross entropy of the auxiliary classifier beside the context module.

    Attributes:
      objective: the main objective.
      weight: factor on the auxiliary cross entropy.
      supervision: the supervision of the auxiliary classifier, one of `SUPERVISIONS`.
    """

    objective: Callable[[Pyramids, UInt8[Array, "n h w"]], Loss]
    weight: float = 0.4
    supervision: str = "finest"

    def __call__(self, predicted: Pyramids, labels: UInt8[Array, "n h w"]) -> Loss:
        """Return the loss of a batch, and its terms by name."""
        loss, terms = self.objective(predicted, labels)
        assert predicted.auxiliary is not None, "the network has an auxiliary classifier"
        auxiliary = masked_cross_entropy(*fit_to_labels(predicted.auxiliary, labels, self.supervision))
        return loss + self.weight * auxiliary, terms | {"auxiliary": auxiliary}


@dataclasses.dataclass(frozen=True)
class WithContextLosses:
    """Another objective plus the weighted extra losses that the context module returns.

    Attributes:
      objective: the main objective.
      weights: name of each extra loss → its factor, as in the spec of the context module.
    """

    objective: Callable[[Pyramids, UInt8[Array, "n h w"]], Loss]
    weights: Mapping[str, float]

    def __call__(self, predicted: Pyramids, labels: UInt8[Array, "n h w"]) -> Loss:
        """Return the loss of a batch, and its terms by name."""
        loss, terms = self.objective(predicted, labels)
        assert predicted.losses is not None, "the context module returns extra losses"
        extra = {name: predicted.losses[name] for name in self.weights}
        return loss + sum(self.weights[name] * value for name, value in extra.items()), terms | extra


def fit_to_labels(
    logits: Float[Array, "n h w c"], labels: UInt8[Array, "n H W"], supervision: str
) -> tuple[Float[Array, "n h2 w2 c"], Int32[Array, "n h2 w2"]]:
    """Bring logits and labels to one size; labels are sampled but never interpolated.

    Args:
      logits: (N, H/s, W/s, C) for a stride s.
      labels: (N, H, W) train ids, 255 = void.
      supervision: `"finest"` samples the labels at the logits' positions; `"full_size"` interpolates the logits to H × W.
    """
    if supervision == "full_size":
        return resize(logits, labels.shape[1:], "half_pixel"), labels.astype(jnp.int32)
    stride = labels.shape[1] // logits.shape[1]
    return logits, build_targets(labels, (stride,)).semantic[0]
