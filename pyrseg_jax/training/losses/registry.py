"""The losses of class predictions by name: what each is computed from, and on which levels of a pyramid."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float, Integer

from pyrseg_jax.pyramid.levels import Array
from pyrseg_jax.training.losses.boundary import boundary_loss
from pyrseg_jax.training.losses.cross_entropy import cross_entropy
from pyrseg_jax.training.losses.dice import dice_loss
from pyrseg_jax.training.losses.focal import focal_loss
from pyrseg_jax.training.losses.lovasz import lovasz_loss


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Numbers that the losses read.

    Attributes:
      class_weights: a weight ≥ 0 for each class, of which only the ratios matter; None: all the same.
      label_smoothing: share of the target that is spread evenly over all classes, 0 … 1.
      focal_gamma: exponent of the focal loss, ≥ 0.
      boundary_px: distance from a border within which the boundary loss learns, in pixels.
    """

    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    boundary_px: int = 8


class LevelTargets(NamedTuple):
    """The logits of one level, and what they are compared with.

    logits: (N, h, w, C).
    classes: (N, h, w) the class to learn at each position; 255 = none, because it is void, mixed, or decided by a coarser level.
    hard: (N, h, w) `classes` without the positions that hard example mining leaves out.
    labels: (N, h, w) the class at each position before coarser levels took theirs; 255 = void or mixed.
    stride_px: pixels of the label map per position and side.
    """

    logits: Float[Array, "n h w c"]
    classes: Integer[Array, "n h w"]
    hard: Integer[Array, "n h w"]
    labels: Integer[Array, "n h w"]
    stride_px: int


class LossSpec(NamedTuple):
    """A loss that a configuration can weigh.

    compute: (targets of a level, settings) → the loss of this level, a scalar.
    meaning: a description in one line.
    is_on_all_levels: whether each level of a pyramid has this loss, or only the finest one.
    """

    compute: Callable[[LevelTargets, LossSettings], Float[Array, ""]]
    meaning: str
    is_on_all_levels: bool = True


def _cross_entropy(level: LevelTargets, settings: LossSettings) -> Float[Array, ""]:
    return cross_entropy(level.logits, level.hard, settings.class_weights, settings.label_smoothing)


def _focal(level: LevelTargets, settings: LossSettings) -> Float[Array, ""]:
    return focal_loss(level.logits, level.hard, settings.focal_gamma, settings.class_weights)


def _dice(level: LevelTargets, settings: LossSettings) -> Float[Array, ""]:
    return dice_loss(level.logits, level.classes)


def _lovasz(level: LevelTargets, settings: LossSettings) -> Float[Array, ""]:
    return lovasz_loss(level.logits, level.classes)


def _boundary(level: LevelTargets, settings: LossSettings) -> Float[Array, ""]:
    distance = max(1, round(settings.boundary_px / level.stride_px))
    weights, smoothing = settings.class_weights, settings.label_smoothing
    return boundary_loss(level.logits, level.classes, level.labels, distance, weights, smoothing)


# Hard example mining chooses the positions of the first two alone: the overlaps of Dice and Lovász need the whole truth, and the
# boundary loss has chosen its positions already. On coarse levels, a border between classes lies inside mixed-cells, which are
# don't care.
LOSSES = {
    "cross_entropy": LossSpec(_cross_entropy, "mean of -log p over the positions"),
    "focal": LossSpec(_focal, "mean of (1 - p)^γ · (-log p) over the positions"),
    "dice": LossSpec(_dice, "mean of 1 - Dice over the classes of the batch"),
    "lovasz": LossSpec(_lovasz, "mean of the Lovász extension of 1 - IoU over images and their classes"),
    "boundary": LossSpec(_boundary, "mean of -log p over the positions near a border", is_on_all_levels=False),
}
