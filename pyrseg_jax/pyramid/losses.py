"""The training loss of both pyramids (Eq. 1)."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jaxtyping import Float, Int32, Integer

from pyrseg_jax.pyramid import levels
from pyrseg_jax.pyramid.levels import Array
from pyrseg_jax.pyramid.targets import Targets


def pyramid_loss(
    semantic_logits: Sequence[Float[Array, "n _ _ c"]],
    unity_logits: Sequence[Float[Array, "n _ _"]],
    targets: Targets,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the loss and its terms.

    The loss is the mean cross entropy over L levels plus the mean binary cross entropy over L-1 levels. The value of a level
    is the mean over those of its cells that are not don't care, in the whole batch; under `jit` with a sharded batch, over all
    devices. A level without such cells contributes 0 and a zero gradient.

    Args:
      semantic_logits: L maps (N, H/s, W/s, C), any float type; the loss is computed in float32.
      unity_logits: L-1 maps (N, H/s, W/s).
      targets: targets that `build_targets` or `specialize` returned.

    Returns:
      The loss, and scalars by name: `semantic` and `unity`, the two halves of the sum, and per level (1 = coarsest)
      `semantic_1` … `semantic_L` and `unity_1` … `unity_(L-1)`.

    Raises:
      ValueError: if the number of levels or the shape of some logits does not match the targets.

    Source: Eq. (1).
    """
    _check_fit("semantic_logits", [s.shape[:-1] for s in semantic_logits], [t.shape for t in targets.semantic])
    _check_fit("unity_logits", [u.shape for u in unity_logits], [t.shape for t in targets.unity])
    semantic = [masked_cross_entropy(*pair) for pair in zip(semantic_logits, targets.semantic, strict=True)]
    unity = [_masked_binary_cross_entropy(*pair) for pair in zip(unity_logits, targets.unity, strict=True)]
    terms = {"semantic": _mean(semantic), "unity": _mean(unity)}
    terms |= {f"semantic_{level}": value for level, value in enumerate(semantic, 1)}
    terms |= {f"unity_{level}": value for level, value in enumerate(unity, 1)}
    return terms["semantic"] + terms["unity"], terms


def masked_cross_entropy(logits: Float[Array, "n h w c"], classes: Integer[Array, "n h w"]) -> Float[Array, ""]:
    """Return the mean cross entropy over the positions whose class is not don't care, or 0 if there are none."""
    is_cared = classes != levels.dont_care_of(classes)
    # Replace the class *before* the loss: 255 is not an index of the logits, so the loss would be NaN, and NaN · 0 is NaN.
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), jnp.where(is_cared, classes, 0)
    )
    return _masked_mean(losses, is_cared)


def _masked_binary_cross_entropy(logits: Float[Array, "n h w"], is_unit: Int32[Array, "n h w"]) -> Float[Array, ""]:
    is_cared = is_unit != levels.DONT_CARE
    truth = jnp.where(is_cared, is_unit, 0).astype(jnp.float32)
    return _masked_mean(optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), truth), is_cared)


def _masked_mean(values: Float[Array, "n h w"], is_cared) -> Float[Array, ""]:
    total = jnp.where(is_cared, values, 0.0).sum()
    return total / jnp.maximum(is_cared.sum(), 1)


def _mean(values: Sequence[Float[Array, ""]]) -> Float[Array, ""]:
    return sum(values, jnp.float32(0)) / max(len(values), 1)


def _check_fit(name: str, found: list, expected: list) -> None:
    if found != expected:
        raise ValueError(f"{name} cover {found} (coarse → fine, without channels): the targets have {expected}")
