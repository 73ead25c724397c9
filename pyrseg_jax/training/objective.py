"""What is minimised: targets from the label map, specialized with the current prediction, and the loss on them."""

import dataclasses
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, UInt8

from pyrseg_jax.models.resample import resize
from pyrseg_jax.models.segmenter import Pyramids
from pyrseg_jax.pyramid import build_targets, pyramid_loss, specialize
from pyrseg_jax.pyramid.losses import masked_cross_entropy
from pyrseg_jax.training.losses import ohem_targets

Loss = tuple[Float[Array, ""], dict[str, Float[Array, ""]]]
# Where a class per pixel is compared with the truth: at the positions of the finest level, or, as other methods do, after
# interpolation to the size of the label map.
SUPERVISIONS = ("finest", "full_size")


@dataclasses.dataclass(frozen=True)
class PyramidObjective:
    """The paper's training objective (Sec. 3.1, Eq. 1).

    Attributes:
      strides: of the levels, coarse → fine.
      procedure: `"tp"`, `"gt"` or `"raw"`; see `pyramid.specialize`.
      threshold: τ, from which a cell counts as predicted unit.
      void: what void pixels do to a cell; see `pyramid.build_targets`.
    """

    strides: Sequence[int] = (32, 16, 8, 4)
    procedure: str = "tp"
    threshold: float = 0.5
    void: str = "agree"

    def __call__(self, predicted: Pyramids, labels: UInt8[Array, "n h w"]) -> Loss:
        """Return the loss of a batch and its terms by name."""
        targets = build_targets(labels, self.strides, self.void)
        targets = specialize(targets, predicted.unity, self.procedure, self.threshold)
        return pyramid_loss(predicted.semantic, predicted.unity, targets)


@dataclasses.dataclass(frozen=True)
class PerPixelObjective:
    """A class per position: the mean over the levels that are predicted of the cross entropy (rows A, B, C and I of Table 2a).

    Attributes:
      supervision: one of `SUPERVISIONS`.
      ohem_threshold: leave out positions whose true class is predicted with at least this probability; None: none.
      ohem_min_kept: but keep at least so many of the whole batch.

    Chosen: a coarser level of row I learns the label map downsampled to its stride as the finest is, and all levels weigh the
      same, as in Eq. (1).
    """

    supervision: str = "finest"
    ohem_threshold: float | None = None
    ohem_min_kept: int = 0

    def __call__(self, predicted: Pyramids, labels: UInt8[Array, "n h w"]) -> Loss:
        """Return the loss of a batch and its terms by name."""
        losses = [self._cross_entropy(logits, labels) for logits in predicted.semantic]
        semantic = sum(losses) / len(losses)
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
    """Any objective, and the cross entropy of the auxiliary classifier beside the context module.

    Attributes:
      objective: the main one.
      weight: of the auxiliary cross entropy.
      supervision: one of `SUPERVISIONS`.
    """

    objective: Callable[[Pyramids, UInt8[Array, "n h w"]], Loss]
    weight: float = 0.4
    supervision: str = "finest"

    def __call__(self, predicted: Pyramids, labels: UInt8[Array, "n h w"]) -> Loss:
        """Return the loss of a batch and its terms by name."""
        loss, terms = self.objective(predicted, labels)
        auxiliary = masked_cross_entropy(*fit_to_labels(predicted.auxiliary, labels, self.supervision))
        return loss + self.weight * auxiliary, terms | {"auxiliary": auxiliary}


def fit_to_labels(
    logits: Float[Array, "n h w c"], labels: UInt8[Array, "n H W"], supervision: str
) -> tuple[Float[Array, "n h2 w2 c"], Int32[Array, "n h2 w2"]]:
    """Bring logits and label map to one size: labels down to the logits' cells, or logits up to the labels' pixels."""
    if supervision == "full_size":
        return resize(logits, labels.shape[1:], "half_pixel"), labels.astype(jnp.int32)
    stride = labels.shape[1] // logits.shape[1]
    return logits, build_targets(labels, (stride,)).semantic[0]
