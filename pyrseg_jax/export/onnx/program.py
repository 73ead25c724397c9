"""The program that an ONNX file holds: from images of one size to the labels of their pixels. It is written in jax first."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Float, Real, UInt

from pyrseg_jax.conventions import label_dtype
from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.evaluation.predict import fuse_pyramids, predict_from
from pyrseg_jax.evaluation.predict import run as run_network
from pyrseg_jax.models.resample import resize
from pyrseg_jax.models.segmenter import Segmenter

Size = tuple[int, int]
# Classes whose maps are enlarged to the image at a time.
CLASSES_AT_A_TIME = 16


class Program(NamedTuple):
    """What a file computes.

    run: (weights by name, images (N, H, W, C), τ) → results by name, see `results_of`.
    size: height and width of the images.
    network_size: height and width at which the network sees them.
    channels, dtype: of the images.
    """

    run: Callable[[dict, Any, Any], dict[str, Array]]
    size: Size
    network_size: Size
    channels: int
    dtype: np.dtype


def make_program(model: Segmenter, size: Size, network_size: Size, dtype: np.dtype) -> Program:
    """Make the program for images of one size; `dtype` is their number format."""
    weights_of_axes = None if size == network_size else resize_weights(size, network_size)

    def run(weights: dict, images: Array, threshold: Array) -> dict[str, Array]:
        variables = unflatten_dict({tuple(name.split("/")): array for name, array in weights.items()})
        seen = images if weights_of_axes is None else resize_images(images, *weights_of_axes)
        return results_of(run_network(model, variables, seen), threshold, size)

    return Program(run, size, network_size, model.channels, np.dtype(dtype))


def results_of(pyramids: Any, threshold: Any, size: Size) -> dict[str, Array]:
    """Return what a file computes from the logits of both pyramids, by name.

    labels: (N, H, W) the class of each pixel.
    probabilities: (N, h, w, C) of the fused map.
    level: (N, h, w) uint8, the level that decides each position of the fused map; 0 is the coarsest.
    semantic_1 … semantic_L: (N, h_l, w_l, C) class probabilities of each level alone, coarse → fine.
    unity_1 … unity_L-1: (N, h_l, w_l) the probability that a cell holds a single class.
    """
    levels = predict_from(pyramids, 0.5)
    # The fuser compares with a number that is fixed while the program is written; so the comparison with τ comes first.
    decided = tuple(jnp.where(unity < threshold, jnp.float32(0), jnp.float32(1)) for unity in levels.unity)
    fused = fuse_pyramids(levels.probs, decided, 0.5)
    results = {
        "labels": labels_at(fused.fused, size),
        "probabilities": fused.fused,
        "level": fused.level.astype(jnp.uint8),
    }
    results |= {f"semantic_{i}": probs for i, probs in enumerate(levels.probs, 1)}
    return results | {f"unity_{i}": unity for i, unity in enumerate(levels.unity, 1)}


def labels_at(probs: Float[Array, "n h w c"], size: Size) -> UInt[Array, "n {size[0]} {size[1]}"]:
    """Return the class of each pixel: the argmax of interpolated probabilities; of equally likely ones, the lowest class."""
    num_classes = probs.shape[-1]
    parts = [probs[..., first : first + CLASSES_AT_A_TIME] for first in range(0, num_classes, CLASSES_AT_A_TIME)]
    best, labels = _best_of(parts[0], size)
    for number, part in enumerate(parts[1:], 1):
        highest, found = _best_of(part, size)
        labels = jnp.where(highest > best, found + number * CLASSES_AT_A_TIME, labels)
        best = jnp.maximum(highest, best)
    return labels.astype(label_dtype(num_classes))


def _best_of(probs: Array, size: Size) -> tuple[Array, Array]:
    """Return the highest interpolated probability of each pixel, and its class."""
    some = resize(probs, size, "half_pixel")
    return some.max(-1), some.argmax(-1).astype(jnp.int32)


def resize_images(
    images: Real[Array, "n h w c"],
    rows: Float[np.ndarray, "h2 h"] | None,
    columns: Float[np.ndarray, "w2 w"] | None,
) -> Float[Array, "n h2 w2 c"]:
    """Resample images with one weight matrix per axis, None for an axis that stays; whole numbers are rounded, as on the host."""
    n, height, width, channels = images.shape
    x = images.astype(jnp.float32)
    if rows is not None:
        x = jnp.matmul(rows, x.reshape(n, height, width * channels), precision="highest")
        x = x.reshape(n, len(rows), width, channels)
    if columns is not None:
        x = jnp.matmul(columns, x, precision="highest")
    return jnp.round(x) if jnp.issubdtype(images.dtype, jnp.integer) else x


def resize_weights(size: Size, new_size: Size) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the weights (h2, h) and (w2, w) with which `data.resample.resize_image` resamples; None for a side that stays."""
    down, right = ((size[axis], new_size[axis]) for axis in (0, 1))
    rows = None if down[0] == down[1] else _weights_along(*down, *right)
    return rows, None if right[0] == right[1] else _weights_along(*right, *down, is_columns=True)


def _weights_along(side: int, new_side: int, other: int, new_other: int, is_columns: bool = False) -> np.ndarray:
    """Resample images that are 1 in one row and 0 elsewhere. The other axis only matters by its ratio, so it is short."""
    ratio = math.gcd(other, new_other)
    shape, new_shape = (side, other // ratio), (new_side, new_other // ratio)
    blocks = []
    for first in range(0, side, 4):
        image = np.zeros((*shape, 4), np.float32)
        for channel in range(min(4, side - first)):
            image[first + channel, :, channel] = 1
        if is_columns:
            blocks.append(resize_image(image.swapaxes(0, 1), (new_shape[1], new_shape[0]))[0])
        else:
            blocks.append(resize_image(image, new_shape)[:, 0])
    return np.concatenate(blocks, axis=1)[:, :side]


def trace(program: Program, weights: dict[str, np.ndarray], num_images: Any) -> tuple[Any, list[str]]:
    """Return the program as a jaxpr, and the names of its outputs in their order.

    The inputs of the jaxpr are τ, the images, and the weights in the order of their names.
    """
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    images = jax.ShapeDtypeStruct((num_images, *program.size, program.channels), program.dtype)
    threshold = jax.ShapeDtypeStruct((), np.float32)
    make = jax.make_jaxpr(lambda t, x, w: program.run(w, x, t), return_shape=True)
    jaxpr, results = make(threshold, images, shapes)
    return jaxpr, sorted(results)  # as jax orders a dictionary
