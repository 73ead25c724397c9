"""Relabeling during training: finer levels need not learn what a coarser level already predicts correctly (Sec. 3.1)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from pyrseg_jax.pyramid import levels
from pyrseg_jax.pyramid.levels import Array
from pyrseg_jax.pyramid.targets import Targets

# Which cells are don't care because a coarser level decides them; see `specialize`.
PROCEDURES = {
    "tp": "true positives, the paper's procedure: ignore cells inside a true unit-cell that is also predicted to be one",
    "gt": "ground truth: ignore cells inside a true unit-cell, whatever is predicted",
    "raw": "ignore no cell",
}


def specialize(
    targets: Targets,
    unity_logits: Sequence[Float[Array, "n _ _"]],
    procedure: str = "tp",
    threshold: float = 0.5,
) -> Targets:
    """Set the cells that are done by coarser levels to don't care, in the semantic and in the unity targets.

    Args:
      targets: targets that `build_targets` returned.
      unity_logits: L-1 maps (N, H/s, W/s): logits of "this cell is a unit-cell" from the current forward pass. No gradient
        flows through them.
      procedure: `"tp"`, the paper's: a cell is done if any of its ancestors is a true positive, which means a unit-cell in the
        ground truth that is also predicted to be one. `"gt"`: a cell is done if any of its ancestors is a unit-cell in the
        ground truth. `"raw"`: no cell is relabeled.
      threshold: τ. A cell with at least this probability counts as predicted unit-cell.

    Raises:
      ValueError: if `procedure` is not one of these, or the maps do not match `targets`.

    Source: Sec. 3.1, "The training phase"; the procedures are the rows D (raw), E (gt) and F (tp) of Table 2a.
    """
    if procedure not in PROCEDURES:
        raise ValueError(f"procedure={procedure!r}: expected one of {', '.join(map(repr, PROCEDURES))}")
    found, expected = [u.shape for u in unity_logits], [u.shape for u in targets.unity]
    if found != expected:
        raise ValueError(f"unity_logits have shapes {found}: expected those of the unity targets, {expected}")
    if procedure == "raw":
        return targets

    semantic, unity = [targets.semantic[0]], list(targets.unity[:1])
    is_done = None
    for level, logits in enumerate(unity_logits):
        is_found = _is_found(targets.unity[level], logits, procedure, threshold)
        is_done = levels.to_children(is_found if is_done is None else is_done | is_found)
        below = targets.semantic[level + 1]
        semantic.append(jnp.where(is_done, levels.dont_care_of(below), below))
        if level + 1 < len(targets.unity):
            unity.append(jnp.where(is_done, levels.DONT_CARE, targets.unity[level + 1]))
    return Targets(tuple(semantic), tuple(unity))


def _is_found(
    unity: Int32[Array, "n h w"], logits: Float[Array, "n h w"], procedure: str, threshold: float
) -> Bool[Array, "n h w"]:
    is_unit = unity == 1
    if procedure == "gt":
        return is_unit
    # Compare probabilities in float32, exactly as `fuse` does.
    return is_unit & (jax.nn.sigmoid(logits.astype(jnp.float32)) >= threshold)
