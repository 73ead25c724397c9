"""How sure a prediction is at each pixel: confidence, entropy, disagreement of the levels, and doubt about a given label."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt

from pyrseg_jax.conventions import label_dtype
from pyrseg_jax.evaluation.disagreement import entropy
from pyrseg_jax.evaluation.padding import PaddedView
from pyrseg_jax.evaluation.pixels import (
    PIXELS_AT_A_TIME,
    level_of_pixels,
    mean_fused,
    mean_over_views,
    num_pieces,
)
from pyrseg_jax.evaluation.temperature import scaled_log_probs
from pyrseg_jax.models.resample import Index, Probs

MAPS = ("confidence", "entropy", "disagreement", "doubt")


class Measured(NamedTuple):
    """How sure the prediction for one image is: the maps of `maps_of_batch`, all (H, W) float32.

    labels: (H, W) predicted train ids.
    disagreement: None for a network without pyramid, and for protocols that cut images into windows.
    doubt: None without a label map.
    """

    labels: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    disagreement: np.ndarray | None
    doubt: np.ndarray | None


@functools.partial(jax.jit, static_argnames=("padded_size", "names"))
def maps_of_batch(
    views: Sequence[PaddedView],
    sizes: Int32[Array, "n 2"],
    padded_size: int,
    names: tuple[str, ...],
    temperatures: Float[Array, "l"],
    truth: UInt[Array, "n {padded_size}"] | None = None,
) -> tuple[UInt[Array, "n {padded_size}"], dict[str, Float32[Array, "n {padded_size}"]], Bool[Array, "n"]]:
    """Return the class of every pixel of a batch of images, as `pixels.labels_of_pixels` does, and maps that say how sure it is.

    With p, the probabilities of a pixel after temperature scaling (see `temperature`), of C classes:

      confidence = max_c p(c), that of the pixel's class;
      entropy = -Σ_c p(c) log p(c) / log C, 0 where a single class is possible and 1 where all are equally likely;
      disagreement: see `disagreement.disagreement_of`; it is known at the positions of the finest level, and interpolated like
        probabilities;
      doubt = max_c log p(c) - log p(label) in nats, 0 where the label is the most likely class, and at void.

    Args:
      views: the views of the batch; their probabilities and disagreements are averaged. For the latter, `ViewPredictor` must add
        them.
      sizes: (N, 2) height and width of each image in pixels.
      padded_size: the size that `padded_pixels` returns for each of them.
      names: which maps, some of `MAPS`.
      temperatures: (L,) T of each level; ones leave probabilities as they are.
      truth: (N, A) train ids, row by row; needed for the doubt.

    Returns:
      (N, A) classes; the maps (N, A) by name; and whether all probabilities of each image are numbers.
    """

    def find(image: tuple) -> tuple:
        views, size, truth = image
        return _maps_of_image(views, size, truth, padded_size, names, temperatures)

    batch = (list(views), sizes, truth)
    if len(sizes) == 1:
        labels, maps = jax.tree.map(lambda x: x[None], find(jax.tree.map(lambda x: x[0], batch)))
    else:
        labels, maps = jax.lax.map(find, batch)
    is_number = jnp.stack([~jnp.isnan(view.cells).any((1, 2)) for view in views]).all(0)
    return labels, maps, is_number


def _maps_of_image(
    views: list[PaddedView],
    size: Int32[Array, "2"],
    truth: UInt[Array, " a"] | None,
    padded_size: int,
    names: tuple[str, ...],
    temperatures: Float[Array, "l"],
) -> tuple[Array, dict[str, Array]]:
    num_classes = views[0].cells.shape[-1]
    dtype = label_dtype(num_classes)
    disagreements = [_lookup(view.disagreement) for view in views] if "disagreement" in names else []

    def fill(i: Array, found: tuple) -> tuple:
        at = i * PIXELS_AT_A_TIME
        pixels = at + jnp.arange(PIXELS_AT_A_TIME)
        probs = mean_fused(views, pixels, size)
        logs = scaled_log_probs(probs, temperatures[level_of_pixels(views[0], pixels, size)])
        pieces = {}
        if "confidence" in names:
            pieces["confidence"] = jnp.exp(logs.max(-1))
        if "entropy" in names:
            pieces["entropy"] = entropy(jnp.exp(logs)) / jnp.log(max(num_classes, 2))
        if "disagreement" in names:
            pieces["disagreement"] = mean_over_views(views, disagreements, pixels, size)[:, 0]
        if "doubt" in names and truth is not None:
            true = jax.lax.dynamic_slice(truth, (at,), (PIXELS_AT_A_TIME,)).astype(jnp.int32)
            of_label = jnp.take_along_axis(logs, jnp.minimum(true, num_classes - 1)[:, None], axis=1)[:, 0]
            pieces["doubt"] = jnp.where(true < num_classes, logs.max(-1) - of_label, 0)
        new = probs.argmax(-1).astype(dtype), {name: pieces[name].astype(jnp.float32) for name in names}
        return jax.tree.map(lambda all, piece: jax.lax.dynamic_update_slice(all, piece, (at,)), found, new)

    empty = jnp.zeros(padded_size, dtype), {name: jnp.zeros(padded_size, jnp.float32) for name in names}
    return jax.lax.fori_loop(0, num_pieces(size), fill, empty)


def _lookup(values: Float[Array, "p"]) -> Callable[[Index], Probs]:
    return lambda at: values[at][:, None]
