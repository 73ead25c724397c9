"""Training objectives: build targets from the label map, specialize them with the prediction, and compute the loss."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float, UInt8

from pyrseg_jax.models.contexts import ContextLoss
from pyrseg_jax.models.segmenter import Pyramids
from pyrseg_jax.models.supervision import cross_entropy, fit_to_labels
from pyrseg_jax.pyramid import build_targets, pyramid_loss, specialize
from pyrseg_jax.pyramid.levels import Array
from pyrseg_jax.pyramid.losses import masked_cross_entropy
from pyrseg_jax.training.losses import ohem_targets

Loss = tuple[Float[Array, ""], dict[str, Float[Array, ""]]]


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
        auxiliary = cross_entropy(predicted.auxiliary, labels, self.supervision)
        return loss + self.weight * auxiliary, terms | {"auxiliary": auxiliary}


@dataclasses.dataclass(frozen=True)
class WithContextLosses:
    """Another objective plus the weighted extra losses of the context module.

    Attributes:
      objective: the main objective.
      losses: the extra losses by name, as in the spec of the context module.
      supervision: the supervision of those that compare logits with labels, one of `SUPERVISIONS`.
    """

    objective: Callable[[Pyramids, UInt8[Array, "n h w"]], Loss]
    losses: Mapping[str, ContextLoss]
    supervision: str = "finest"

    def __call__(self, predicted: Pyramids, labels: UInt8[Array, "n h w"]) -> Loss:
        """Return the loss of a batch, and its terms by name."""
        loss, terms = self.objective(predicted, labels)
        for name, extra in self.losses.items():
            terms[name] = extra.compute(predicted.outputs, labels, self.supervision)
            loss += extra.weight * terms[name]
        return loss, terms
