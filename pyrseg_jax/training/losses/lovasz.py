"""Lovász-softmax loss: a convex surrogate of 1 - IoU."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer

from pyrseg_jax.pyramid.levels import Array, dont_care_of


def lovasz_loss(logits: Float[Array, "n h w c"], classes: Integer[Array, "n h w"]) -> Float[Array, ""]:
    """Return the mean over the images of the mean over each image's classes of the Lovász extension of 1 - IoU.

    The error of a position for a class is 1 - p at the positions of the class and p elsewhere. The extension sorts the errors in
    descending order and adds each one, times how much 1 - IoU grows when this position is predicted wrongly as well.

    Args:
      logits: (N, h, w, C), any float type; the loss is computed in float32, which counts up to 4096 × 4096 positions exactly.
      classes: (N, h, w), 255 = don't care; such positions do not count. Images without a labeled position do not count either; if
        there is no other, the result is 0.

    Source: Berman et al. 2018, Alg. 1 and Sec. 4.
    Chosen: per image and not per batch: a sort over the batch would gather it on one device. Only the classes that an image shows
      count, as in that paper.
    Differs: errors that agree within the steps of `descending_order` may be added in either order. The result is too small by at
      most one such step, because the growths of 1 - IoU are at least 0 and sum up to at most 1.
    """
    n, num_classes = logits.shape[0], logits.shape[-1]
    is_cared = (classes != dont_care_of(classes))[..., None]
    probs = jax.nn.softmax(logits.astype(jnp.float32))
    truth = jax.nn.one_hot(classes, num_classes, dtype=jnp.float32)
    # Errors of 0 come last and add nothing, so that void is where it changes nothing.
    errors = jnp.where(is_cared, jnp.where(truth > 0, 1 - probs, probs), 0.0)
    errors, truth = (x.reshape(n, -1, num_classes).swapaxes(1, 2) for x in (errors, truth))
    order = descending_order(jax.lax.stop_gradient(errors))
    errors, truth = (jnp.take_along_axis(x, order, axis=-1) for x in (errors, truth))
    extension = (errors * jaccard_steps(truth)).sum(-1)
    is_shown = truth.sum(-1) > 0
    num_shown = is_shown.sum(-1)
    of_images = jnp.where(is_shown, extension, 0.0).sum(-1) / jnp.maximum(num_shown, 1)
    return of_images.sum() / jnp.maximum((num_shown > 0).sum(), 1)


def descending_order(errors: Float[Array, "n c p"]) -> Integer[Array, "n c p"]:
    """Return the positions in descending order of their errors, each from 0 to 1, rounded to steps of 2^-(32 - ⌈log2 p⌉).

    One integer holds a position and its error, which sorts five times as fast on a CPU as errors that carry other arrays along
    (docs/log/performance.md). With 3136 positions, a step is 2^-20; float32 itself has steps of 2^-24 below 1.
    """
    num_positions = errors.shape[-1]
    position_bits = max(num_positions - 1, 1).bit_length()
    error_bits = 32 - position_bits
    # Multiplied by a power of two, which is exact. An error of 1 would need one bit more.
    largest = 2**error_bits - 1
    steps = jnp.minimum((jnp.clip(errors, 0, 1) * 2.0**error_bits).astype(jnp.uint32), largest)
    positions = jnp.arange(num_positions, dtype=jnp.uint32)
    packed = jax.lax.sort((largest - steps) << position_bits | positions)
    return (packed & (2**position_bits - 1)).astype(jnp.int32)


def jaccard_steps(truth: Float[Array, "n c p"]) -> Float[Array, "n c p"]:
    """Return by how much 1 - IoU grows with each further wrong position; `truth` is 1 at positions of the class, and sorted.

    With k wrong positions, 1 - IoU is 1 - I / U, where I positions of the class are still right and U is their union with the
    prediction. A further wrong position of the class lowers I by 1; another one raises U by 1. Both differences are written out,
    because float32 loses digits in the difference of two nearly equal quotients.
    """
    num = truth.sum(-1, keepdims=True)
    right = num - jnp.cumsum(truth, -1)
    union = num + jnp.cumsum(1 - truth, -1)
    at_others = right / (jnp.maximum(union, 1.0) * jnp.maximum(union - 1, 1.0))
    return jnp.where(truth > 0, 1 / jnp.maximum(union, 1.0), at_others)
