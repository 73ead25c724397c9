"""From images to class maps: forward pass, fuse, upsample to the image's own size, argmax."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt8

from pyrseg_jax.data.transforms import resize_image
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.pyramid import fuse
from pyrseg_jax.pyramid.levels import nearest_multiple

# Rows of the final map that are interpolated at a time: bounds the memory at 150 classes and 2048 pixels to some 40 MB.
ROWS_AT_A_TIME = 32
CANVAS_MULTIPLE = 64


class Outputs(NamedTuple):
    """What the network says about a batch, fused, before it is brought to the images' own sizes.

    probs: (N, h, w, C) fused class probabilities at the finest level.
    level: (N, h, w) which level was taken; 0 is the coarsest.
    semantic: L maps (N, h_l, w_l) uint8, the most likely class of each cell.
    unity: L-1 maps (N, h_l, w_l), the probability that a cell is a unit-cell.
    """

    probs: Float[Array, "n h w c"]
    level: Int32[Array, "n h w"]
    semantic: tuple[UInt8[Array, "n _ _"], ...]
    unity: tuple[Float[Array, "n _ _"], ...]


def run_network(model: nn.Module, variables: dict, images: UInt8[Array, "n h w 3"], threshold: float) -> Outputs:
    """Predict both pyramids of a batch and fuse them; H and W are multiples of the coarsest stride."""
    predicted = model.apply(variables, normalize(images), False)
    semantic = [jax.nn.softmax(logits) for logits in predicted.semantic]
    unity = tuple(jax.nn.sigmoid(logits) for logits in predicted.unity)
    fused = fuse(semantic, unity, threshold)
    return Outputs(fused.probs, fused.level, tuple(probs.argmax(-1).astype(jnp.uint8) for probs in semantic), unity)


def upsample_argmax(
    probs: Float[Array, "h w c"], size: Int32[Array, "2"], canvas: tuple[int, int]
) -> UInt8[Array, "{canvas[0]} {canvas[1]}"]:
    """Interpolate probabilities to `size` and take the most likely class, on the upper left of a larger canvas.

    Bilinear with half-pixel centres (PyTorch's `align_corners=False`). The size is a traced value, so that images of many
    sizes share one program; what lies outside of it repeats the border. Only `ROWS_AT_A_TIME` rows of probabilities
    exist at a time.

    Args:
      probs: (h, w, C) of one image.
      size: the height and width that (h, w) stretches over.
      canvas: height and width of the result, at least `size`.
    """
    height, width = canvas
    num_chunks = -(-height // ROWS_AT_A_TIME)
    rows = _taps(num_chunks * ROWS_AT_A_TIME, probs.shape[0], size[0])
    columns = _taps(width, probs.shape[1], size[1])

    def classes_of(chunk):
        before, after, share = chunk
        share = share[:, None, None]
        lines = probs[before] * (1 - share) + probs[after] * share
        before, after, share = columns
        share = share[None, :, None]
        return (lines[:, before] * (1 - share) + lines[:, after] * share).argmax(-1).astype(jnp.uint8)

    chunks = jax.tree.map(lambda x: x.reshape(num_chunks, ROWS_AT_A_TIME), rows)
    return jax.lax.map(classes_of, chunks).reshape(-1, width)[:height]


def _taps(num_out: int, num_in: int, size: Int32[Array, ""]):
    """Return, per output position, the two input positions around it and the share of the second."""
    at = (jnp.arange(num_out) + 0.5) * (num_in / size) - 0.5
    at = jnp.clip(at, 0, num_in - 1)
    before = jnp.floor(at).astype(jnp.int32)
    return before, jnp.minimum(before + 1, num_in - 1), at - before


def make_network_size(
    stride: int, short_side_px: int | None, long_side_px: int
) -> Callable[[int, int], tuple[int, int]]:
    """Make the rule that turns an image's (height, width) into those that the network sees.

    The short side is brought to `short_side_px` (None: left as it is), but no side above `long_side_px`; then each side is
    rounded to the nearest multiple of `stride`, the coarsest of the pyramid (Sec. 3.1).
    """

    def network_size(height: int, width: int) -> tuple[int, int]:
        short, long = sorted((height, width))
        scale = 1.0 if short_side_px is None else short_side_px / short
        scale = min(scale, long_side_px / long)
        return nearest_multiple(round(height * scale), stride), nearest_multiple(round(width * scale), stride)

    return network_size


class Segmentation(NamedTuple):
    """The prediction for one image, as NumPy arrays.

    labels: (H, W) uint8 train ids at the image's own size.
    probs: (h, w, C) fused probabilities at the finest level.
    level: (h, w) which level was taken; 0 is the coarsest.
    semantic: L maps (h_l, w_l) uint8, coarse → fine.
    unity: L-1 maps (h_l, w_l) probabilities.
    strides: of the levels.
    """

    labels: UInt8[np.ndarray, "H W"]
    probs: Float[np.ndarray, "h w c"]
    level: Int32[np.ndarray, "h w"]
    semantic: tuple[np.ndarray, ...]
    unity: tuple[np.ndarray, ...]
    strides: tuple[int, ...]


class Predictor:
    """Segment single images of any size: `predictor(image)`.

    Compiles once per size that the network sees and once per canvas, not once per image size.
    """

    def __init__(
        self, model: nn.Module, variables: dict, network_size: Callable, strides: Sequence[int], threshold: float
    ):
        self._variables = variables
        self._network_size = network_size
        self._strides = tuple(strides)
        self._run = jax.jit(functools.partial(run_network, model, threshold=threshold))
        self._upsample = jax.jit(upsample_argmax, static_argnames="canvas")

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> Segmentation:
        """Segment one RGB image."""
        height, width = image.shape[:2]
        small = resize_image(image, self._network_size(height, width))
        outputs = jax.tree.map(lambda x: x[0], self._run(self._variables, images=small[None]))
        canvas = canvas_of(height, width)
        labels = self._upsample(outputs.probs, np.array([height, width], np.int32), canvas=canvas)
        outputs, labels = jax.device_get((outputs, labels))
        return Segmentation(labels[:height, :width], *outputs, self._strides)


def canvas_of(height: int, width: int) -> tuple[int, int]:
    """Round a size up, so that few canvases, and programs, are needed."""
    return tuple(-(-side // CANVAS_MULTIPLE) * CANVAS_MULTIPLE for side in (height, width))
