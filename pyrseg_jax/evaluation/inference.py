"""From images to class maps: show them to the network as a protocol says, average, upsample, argmax."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt8

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.evaluation.pixels import classes_of, room_for_pixels
from pyrseg_jax.evaluation.showing import Showing, room_for, show
from pyrseg_jax.evaluation.views import Protocol, window_starts
from pyrseg_jax.models.backbones.hrnet import OUTPUT_STRIDE
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.pyramid import fuse

Images = UInt8[np.ndarray, "_ _ _ 3"]


class Presenter:
    """Show batches of images to a network as a protocol says.

    Args:
      model: the segmenter.
      protocol: which sizes, mirrored or not, whole or in windows.
      threshold: τ of the fuser.
      replicated, rows: shardings of the variables and of what has an axis of images; None on a single device.
    """

    def __init__(self, model: nn.Module, protocol: Protocol, threshold: float, replicated=None, rows=None):
        self._protocol = protocol
        sharded = {} if rows is None else {"in_shardings": (replicated, rows, rows, rows), "out_shardings": rows}
        self._show = jax.jit(functools.partial(_show, model, threshold), **sharded)
        self._join = _join_window
        self._put = functools.partial(jax.device_put, device=rows)

    def lower(self, variables: dict, images, labels, is_mirrored) -> jax.stages.Lowered:
        """Lower the program that shows a batch, from shapes, for compilation ahead of time."""
        return self._show.lower(variables, images, labels, is_mirrored)

    @property
    def is_single(self) -> bool:
        """Whether an image is shown once and whole, so that each pixel has one pyramid."""
        protocol = self._protocol
        return len(protocol.scales) == 1 and not protocol.is_mirrored and protocol.window_px is None

    def num_programs(self) -> int:
        """Return how many programs were compiled to show images."""
        return self._show._cache_size()

    def __call__(
        self, variables: dict, images: Sequence[Images], labels: UInt8[np.ndarray, "_ _ _"]
    ) -> tuple[list[Showing], dict[str, Array], tuple[Array, ...]]:
        """Show a batch; the first showing is the first scale as it is.

        Args:
          variables: of the model.
          images: the batch, per scale of the protocol.
          labels: label maps at the size of the first scale.

        Returns:
          The showings, and for the first of them the sums per image and the unity pyramid of `showing.show`; of an image in
          windows the unity pyramid is that of its last window.
        """
        first, sums, unity = self._show_scale(variables, images[0], labels, False)
        showings = [first]
        for scale, batch in enumerate(images):
            nothing = np.full(batch.shape[:3], VOID, np.uint8)
            if scale:
                showings.append(self._show_scale(variables, batch, nothing, False)[0])
            if self._protocol.is_mirrored:
                showings.append(self._show_scale(variables, np.ascontiguousarray(batch[:, :, ::-1]), nothing, True)[0])
        return showings, sums, unity

    def _show_scale(self, variables, images: Images, labels, is_mirrored: bool) -> tuple:
        height, width = images.shape[1:3]
        window = self._protocol.window_px or max(height, width)
        mirrored = np.full(len(images), is_mirrored)
        if max(height, width) <= window:
            return self._show(variables, *self._put((images, labels, mirrored)))
        joined, totals = None, None
        for top in window_starts(height, window, OUTPUT_STRIDE):
            for left in window_starts(width, window, OUTPUT_STRIDE):
                cut = (slice(None), slice(top, top + window), slice(left, left + window))
                part = (np.ascontiguousarray(images[cut]), np.ascontiguousarray(labels[cut]), mirrored)
                showing, sums, unity = self._show(variables, *self._put(part))
                at = np.array([top, left, height, width], np.int32) // OUTPUT_STRIDE
                joined = self._join(joined or _empty(showing, height, width), showing, at)
                totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
        total, times, level = joined
        showing = showing.replace(
            cells=total / jnp.maximum(times, 1)[:, None],
            chosen=jnp.tile(jnp.arange(total.shape[1], dtype=jnp.int32), (len(images), 1)),
            level=level,
            true_chosen=level,
            true_class=level,
            grid=jnp.tile(jnp.asarray(at[2:]), (len(images), 1)),
        )
        return showing, totals, unity


def _show(model, threshold, variables, images, labels, is_mirrored):
    return show(model, variables, images, labels, is_mirrored, threshold)


def _empty(showing: Showing, height: int, width: int) -> tuple:
    """Return sums of probabilities, how often each position was seen, and its level, before the first window."""
    n, _, num_classes = showing.cells.shape
    room = room_for(height // OUTPUT_STRIDE * (width // OUTPUT_STRIDE))
    return jnp.zeros((n, room, num_classes)), jnp.zeros(room), jnp.zeros((n, room), jnp.int32)


@jax.jit
def _join_window(joined: tuple, window: Showing, at: Int32[Array, "4"]) -> tuple:
    """Add a window's fused probabilities to those of the whole image; `at`: top, left, height and width in positions."""
    total, times, level = joined
    top, left, _, width = at
    height_of_window, width_of_window = window.grid[0]
    position = jnp.arange(window.chosen.shape[1])
    to = (top + position // width_of_window) * width + left + position % width_of_window
    to = jnp.where(position < height_of_window * width_of_window, to, times.size)
    probs = jnp.take_along_axis(window.cells, window.chosen[..., None], axis=1)
    return (
        total.at[:, to].add(probs, mode="drop"),
        times.at[to].add(1, mode="drop"),
        level.at[:, to].set(window.level, mode="drop"),
    )


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


@functools.partial(jax.jit, static_argnames="grid")
def _outputs_of(showing: Showing, unity: tuple[Array, ...], grid: tuple[int, int]) -> Outputs:
    """Read from a showing what `run_network` returns; `grid`: height and width of its finest level."""
    num_levels, (height, width) = len(unity) + 1, grid
    num_images, _, num_classes = showing.cells.shape
    chosen = jnp.take_along_axis(showing.cells, showing.chosen[:, : height * width, None], axis=1)
    semantic, first = [], 0
    for times in reversed(range(num_levels)):
        h, w = height >> times, width >> times
        semantic.append(showing.cells[:, first : first + h * w].argmax(-1).astype(jnp.uint8).reshape(num_images, h, w))
        first += h * w
    level = showing.level[:, : height * width].reshape(num_images, height, width)
    return Outputs(chosen.reshape(num_images, height, width, num_classes), level, tuple(semantic), unity)


class Segmentation(NamedTuple):
    """The prediction for one image, as NumPy arrays.

    labels: (H, W) uint8 train ids at the image's own size, by the whole protocol.
    probs: (h, w, C) fused probabilities at the finest level, of the image shown once and whole, like all below.
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

    Compiles per size that the network sees, not per image size.
    """

    def __init__(self, model: nn.Module, variables: dict, protocol: Protocol, threshold: float):
        self._variables, self._protocol = variables, protocol
        self._present = Presenter(model, protocol, threshold)
        self._run = jax.jit(functools.partial(run_network, model, threshold=threshold))

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> Segmentation:
        """Segment one RGB image."""
        height, width = image.shape[:2]
        images = [resize_image(image, size)[None] for size in self._protocol.sizes(height, width)]
        nothing = np.full(images[0].shape[:3], VOID, np.uint8)
        showings, _, unity = self._present(self._variables, images, nothing)
        if self._protocol.window_px is None:
            grid = tuple(side // OUTPUT_STRIDE for side in images[0].shape[1:3])
            outputs = _outputs_of(showings[0], unity, grid)
        else:  # no window knows the pyramid of the whole image
            outputs = self._run(self._variables, images=images[0])
        labels = classes_of(showings, np.array([height, width], np.int32), room_for_pixels(height * width))
        outputs, labels = jax.device_get((outputs, labels))
        outputs = jax.tree.map(lambda x: x[0], outputs)
        strides = tuple(OUTPUT_STRIDE << i for i in reversed(range(len(outputs.semantic))))
        return Segmentation(labels[: height * width].reshape(height, width), *outputs, strides)
