"""What the network says about one showing of a batch, in arrays whose shapes do not depend on the images' sizes.

The program that scores pixels can then be one for all sizes: it takes heights and widths as values.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, UInt8

from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.pyramid import build_targets, fuse
from pyrseg_jax.pyramid.levels import DONT_CARE, to_children

# How many positions of the finest level the arrays have room for: images of up to 256² and 1024² pixels, then of twice as many.
GRID_ROOMS = (4**6, *(2**i for i in range(16, 25)))


@flax.struct.dataclass
class Showing:
    """The cells of all levels of a batch as rows of one table, and which row each position of the finest level takes.

    Attributes:
      cells: (N, R, C) class probabilities, level by level, coarse → fine, each row-major; the rest is padding.
      chosen: (N, P) row in `cells` that the fuser gives each finest position, row-major.
      level: (N, P) the level of that row; 0 is the coarsest.
      true_chosen: as `chosen`, if the fuser were given the true unity pyramid.
      true_class: (N, P) class of the true semantic pyramid at the level that the predicted unity pyramid gives.
      grid: (N, 2) height and width of the finest level.
      is_mirrored: (N,) whether the image was shown mirrored.
    """

    cells: Any  # not annotated closer: the same class holds one image of a batch, and host arrays
    chosen: Any
    level: Any
    true_chosen: Any
    true_class: Any
    grid: Any
    is_mirrored: Any


def room_for(num_positions: int) -> int:
    """Return how much room the arrays of a showing have, given how many positions the finest level has."""
    return next((room for room in GRID_ROOMS if room >= num_positions), num_positions)


def show(
    model: nn.Module,
    variables: dict,
    images: UInt8[Array, "n h w 3"],
    labels: UInt8[Array, "n h w"],
    is_mirrored: Array,
    threshold: float,
) -> tuple[Showing, dict[str, Array], tuple[Array, ...]]:
    """Predict and fuse a batch, and compare the unity pyramid with the truth.

    Args:
      model: the segmenter, and
      variables: what it was trained to.
      images: sides are multiples of the coarsest stride.
      labels: label maps at the images' size; all void where nothing shall be counted.
      is_mirrored: (N,) whether images (and labels) are mirrored.
      threshold: τ of the fuser.

    Returns:
      The showing, and sums per image: `level_counts` (N, L) finest positions that each level decides; for the levels above the
      finest `unity_true`, `unity_predicted` and `unity_both` (N, L-1) cells, of those that are not don't care, and
      `unit_cells` (N, L-1, C) true unit-cells of each class. And the unity pyramid: L-1 maps (N, h, w) of probabilities.
    """
    predicted = model.apply(variables, normalize(images), False)
    semantic = [jax.nn.softmax(logits) for logits in predicted.semantic]
    unity = [jax.nn.sigmoid(logits) for logits in predicted.unity]
    num_levels, num_classes = len(semantic), semantic[0].shape[-1]
    stride = images.shape[1] // semantic[-1].shape[1]
    strides = tuple(stride << i for i in reversed(range(num_levels)))
    targets = build_targets(labels, strides)
    is_true = [(u == 1).astype(jnp.float32) for u in targets.unity]
    level, true_level = (fuse(semantic, u, threshold).level for u in (unity, is_true))

    n, height, width = level.shape
    room = room_for(height * width)
    cells = jnp.concatenate([s.reshape(n, -1, num_classes) for s in semantic], axis=1)
    showing = Showing(
        cells=_pad(cells, -(-4 * room // 3)),
        chosen=_pad(_rows_of(level, num_levels), room),
        level=_pad(level.reshape(n, -1), room),
        true_chosen=_pad(_rows_of(true_level, num_levels), room),
        true_class=_pad(_true_classes(labels, targets, strides, level), room),
        grid=jnp.tile(jnp.asarray([height, width], jnp.int32), (n, 1)),
        is_mirrored=is_mirrored,
    )
    sums = {"level_counts": (level[..., None] == jnp.arange(num_levels)).sum((1, 2))}
    return showing, sums | _compare_unity(unity, targets, threshold, num_classes), tuple(unity)


def _pad(x: Array, room: int) -> Array:
    return jnp.pad(x, ((0, 0), (0, room - x.shape[1]), *((0, 0),) * (x.ndim - 2)))


def _rows_of(level: Int32[Array, "n h w"], num_levels: int) -> Int32[Array, "n p"]:
    """Return the row of the table that each position takes, given its level."""
    height, width = level.shape[1:]
    rows, first = jnp.zeros_like(level), 0
    for i in range(num_levels):
        h, w = (side >> (num_levels - 1 - i) for side in (height, width))
        own = first + jnp.arange(h * w, dtype=jnp.int32).reshape(1, h, w)
        rows = jnp.where(level == i, to_children(own, height // h), rows)
        first += h * w
    return rows.reshape(len(level), -1)


def _true_classes(labels, targets, strides, level) -> Int32[Array, "n p"]:
    """Return the true class of the cell that answers for each position: of a mixed cell the class at its centre."""
    found = jnp.zeros_like(level)
    for i, (stride, semantic) in enumerate(zip(strides, targets.semantic, strict=True)):
        centre = labels[:, stride // 2 :: stride, stride // 2 :: stride].astype(jnp.int32)
        classes = jnp.where(semantic == DONT_CARE, centre, semantic)
        found = jnp.where(level == i, to_children(classes, stride // strides[-1]), found)
    return found.reshape(len(level), -1)


def _compare_unity(unity, targets, threshold: float, num_classes: int) -> dict[str, Array]:
    n = targets.semantic[0].shape[0]
    found = {name: [] for name in ("unity_true", "unity_predicted", "unity_both", "unit_cells")}
    for probs, truth, semantic in zip(unity, targets.unity, targets.semantic[:-1], strict=True):
        is_cared, is_unit, is_predicted = truth != DONT_CARE, truth == 1, probs >= threshold
        found["unity_true"].append(is_unit.sum((1, 2)))
        found["unity_predicted"].append((is_predicted & is_cared).sum((1, 2)))
        found["unity_both"].append((is_predicted & is_unit).sum((1, 2)))
        found["unit_cells"].append((semantic[..., None] == jnp.arange(num_classes)).sum((1, 2)))
    empty = {"unit_cells": jnp.zeros((n, 0, num_classes), jnp.int32)}
    return {
        name: jnp.stack(values, axis=1) if values else empty.get(name, jnp.zeros((n, 0), jnp.int32))
        for name, values in found.items()
    }
