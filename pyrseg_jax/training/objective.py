"""Training objectives: build targets from the label map, specialize them with the prediction, and compute the loss."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Float, Integer

from pyrseg_jax.models.contexts import ContextLoss
from pyrseg_jax.models.segmenter import Pyramids
from pyrseg_jax.models.supervision import cross_entropy, fit_to_labels
from pyrseg_jax.pyramid import Targets, build_targets, pyramid_loss, specialize
from pyrseg_jax.pyramid.levels import Array
from pyrseg_jax.training.losses import LevelTargets, SemanticLosses, ohem_targets
from pyrseg_jax.training.losses.focal import unity_loss

Loss = tuple[Float[Array, ""], dict[str, Float[Array, ""]]]


@dataclasses.dataclass(frozen=True)
class PyramidObjective:
    """The paper's training objective, and others for the same prediction. The defaults are the paper's.

    Attributes:
      strides: strides of the levels in pixels, coarse → fine.
      procedure: `"tp"`, `"gt"` or `"raw"`; see `pyramid.specialize`.
      threshold: τ, 0 … 1; a cell with at least this unity probability counts as predicted unit-cell.
      void: the treatment of void pixels; see `pyramid.build_targets`.
      losses: the losses of the semantic pyramid, each over the cells of a level that are not don't care after the relabeling.
      unity_weight: factor on the loss of the unity pyramid.
      unity_gamma: exponent of the focal loss of the unity pyramid; 0: binary cross entropy.
      ohem_threshold: probability of the true class below which a cell of the semantic pyramid is learned from, among those that are
        not don't care; None uses all of them.
      ohem_min_kept: number of cells of the finest level to learn from at least. Each coarser level, which has a quarter of the
        cells of the next, keeps a quarter of that.

    Source: Sec. 3.1, Eq. (1).
    Chosen: hard example mining on each level by itself, since the levels differ in their number of cells, and not for the unity
      pyramid, whose hard cells are those that are nearly unit-cells.
    """

    strides: Sequence[int] = (32, 16, 8, 4)
    procedure: str = "tp"
    threshold: float = 0.5
    void: str = "agree"
    losses: SemanticLosses = SemanticLosses()
    unity_weight: float = 1.0
    unity_gamma: float = 0.0
    ohem_threshold: float | None = None
    ohem_min_kept: int = 0

    def __call__(self, predicted: Pyramids, labels: Integer[Array, "n h w"]) -> Loss:
        """Return the loss of a batch, and its terms by name."""
        whole = build_targets(labels, self.strides, self.void)
        targets = specialize(whole, predicted.unity, self.procedure, self.threshold)
        hard = targets.semantic if self.ohem_threshold is None else self._hard(predicted, targets)
        if self.losses.is_plain and self.unity_weight == 1 and self.unity_gamma == 0:
            return pyramid_loss(predicted.semantic, predicted.unity, Targets(hard, targets.unity))
        levels = zip(predicted.semantic, targets.semantic, hard, whole.semantic, self.strides, strict=True)
        semantic, terms = self.losses([LevelTargets(*level) for level in levels])
        each = [unity_loss(*pair, self.unity_gamma) for pair in zip(predicted.unity, targets.unity, strict=True)]
        unity = sum(each, jnp.float32(0)) / max(len(each), 1)
        terms |= {"unity": unity} | {f"unity_{level}": value for level, value in enumerate(each, 1)}
        return semantic + self.unity_weight * unity, terms

    def _hard(self, predicted: Pyramids, targets: Targets) -> tuple[Integer[Array, "n _ _"], ...]:
        """Return the semantic targets without the easy cells."""
        assert self.ohem_threshold is not None, "asked for only with a threshold"
        kept = [-(-self.ohem_min_kept // (stride // self.strides[-1]) ** 2) for stride in self.strides]
        levels = zip(predicted.semantic, targets.semantic, kept, strict=True)
        return tuple(ohem_targets(logits, classes, self.ohem_threshold, k) for logits, classes, k in levels)


@dataclasses.dataclass(frozen=True)
class PerPixelObjective:
    """Losses of a class per position, averaged over the predicted levels (rows A, B, C and I of Table 2a: cross entropy).

    Attributes:
      supervision: one of `SUPERVISIONS`.
      ohem_threshold: probability of the true class below which a position is learned from; None uses all positions.
      ohem_min_kept: number of positions of the batch to learn from at least.
      losses: the losses of each level.

    Chosen: in row I, each coarser level learns from the label map downsampled to its stride, in the same way as the finest
      level, and all levels have the same weight, as in Eq. (1).
    """

    supervision: str = "finest"
    ohem_threshold: float | None = None
    ohem_min_kept: int = 0
    losses: SemanticLosses = SemanticLosses()

    def __call__(self, predicted: Pyramids, labels: Integer[Array, "n h w"]) -> Loss:
        """Return the loss of a batch, and its terms by name."""
        return self.losses([self._level(logits, labels) for logits in predicted.semantic])

    def _level(self, logits: Float[Array, "n h w c"], labels: Integer[Array, "n H W"]) -> LevelTargets:
        logits, classes = fit_to_labels(logits, labels, self.supervision)
        hard = classes
        if self.ohem_threshold is not None:
            hard = ohem_targets(logits, classes, self.ohem_threshold, self.ohem_min_kept)
        return LevelTargets(logits, classes, hard, classes, labels.shape[1] // logits.shape[1])


@dataclasses.dataclass(frozen=True)
class WithAuxiliary:
    """Another objective plus the weighted cross entropy of the auxiliary classifier beside the context module.

    Attributes:
      objective: the main objective.
      weight: factor on the auxiliary cross entropy.
      supervision: the supervision of the auxiliary classifier, one of `SUPERVISIONS`.
    """

    objective: Callable[[Pyramids, Integer[Array, "n h w"]], Loss]
    weight: float = 0.4
    supervision: str = "finest"

    def __call__(self, predicted: Pyramids, labels: Integer[Array, "n h w"]) -> Loss:
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

    objective: Callable[[Pyramids, Integer[Array, "n h w"]], Loss]
    losses: Mapping[str, ContextLoss]
    supervision: str = "finest"

    def __call__(self, predicted: Pyramids, labels: Integer[Array, "n h w"]) -> Loss:
        """Return the loss of a batch, and its terms by name."""
        loss, terms = self.objective(predicted, labels)
        for name, extra in self.losses.items():
            terms[name] = extra.compute(predicted.outputs, labels, self.supervision)
            loss += extra.weight * terms[name]
        return loss, terms
