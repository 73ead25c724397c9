"""The validation loss: the training objective without what makes its value depend on the prediction, the batch or the draw."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Integer

from pyrseg_jax.models.segmenter import Pyramids
from pyrseg_jax.training.objective import PyramidObjective, WithAuxiliary, WithContextLosses

ImageLosses = Callable[[Pyramids, Integer[Array, "n h w"]], Float[Array, "n"]]


def make_image_losses(objective: Callable) -> ImageLosses:
    """Make the function (prediction outside of training, labels (N, H, W) of the same images) → loss of each image (N,).

    It is the main term of the training objective, computed for each image alone: without the auxiliary classifier, the extra losses
    of context modules and hard example mining, which serve training only. With a pyramid, the cells inside true unit-cells are
    don't care whatever is predicted ("gt"), so that all checkpoints are measured by the same cells; training without relabeling
    ("raw") is measured by all cells.

    Args:
      objective: the training objective.

    Chosen: where the finest level of a pyramid is refined outside of training, the loss reads it at the pixels whose classes are
      the targets of that level.
    """
    main: Any = objective
    while isinstance(main, WithAuxiliary | WithContextLosses):
        main = main.objective
    changes: dict[str, Any] = {}
    if getattr(main, "ohem_threshold", None) is not None:
        changes["ohem_threshold"] = None
    if isinstance(main, PyramidObjective) and main.procedure != "raw":
        changes["procedure"] = "gt"
    if changes:
        main = dataclasses.replace(main, **changes)

    def loss_of(predicted: Pyramids, labels: Integer[Array, "h w"]) -> Float[Array, ""]:
        alone = jax.tree.map(lambda x: x[None], predicted)
        if isinstance(main, PyramidObjective):
            alone = alone._replace(semantic=_at_targets(alone.semantic, labels.shape[0], main.strides[-1]))
        loss: Any = main(alone, labels[None])[0]
        return loss

    def image_losses(predicted: Pyramids, labels: Integer[Array, "n h w"]) -> Float[Array, "n"]:
        # Outputs for context losses may lack the axis of the images; nothing here reads them.
        plain = Pyramids(predicted.semantic, predicted.unity, outputs={})
        return jax.vmap(loss_of)(plain, labels)

    return image_losses


def _at_targets(
    semantic: tuple[Float[Array, "n _ _ c"], ...], height: int, finest: int
) -> tuple[Float[Array, "n _ _ c"], ...]:
    """Take a refined finest level at the pixels whose classes are its targets; see `build_targets`."""
    *coarser, last = semantic
    refined = height // last.shape[1]
    first, step = finest // 2 // refined, finest // refined
    return (*coarser, last if step == 1 else last[:, first::step, first::step])
