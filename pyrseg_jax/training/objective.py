"""What is minimised: targets from the label map, specialized with the current prediction, and the loss on them."""

import dataclasses
from collections.abc import Sequence

from jaxtyping import Array, Float, UInt8

from pyrseg_jax.models.segmenter import Pyramids
from pyrseg_jax.pyramid import build_targets, pyramid_loss, specialize


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

    def __call__(
        self, predicted: Pyramids, labels: UInt8[Array, "n h w"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Return the loss of a batch and its terms by name."""
        targets = build_targets(labels, self.strides, self.void)
        targets = specialize(targets, predicted.unity, self.procedure, self.threshold)
        return pyramid_loss(predicted.semantic, predicted.unity, targets)
