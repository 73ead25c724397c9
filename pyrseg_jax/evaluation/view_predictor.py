"""Predict every view of a batch of images: its scales, mirrored or not, whole or in windows."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Integer, Real, UInt

from pyrseg_jax.evaluation.disagreement import disagreement_of
from pyrseg_jax.evaluation.padding import PaddedView, pad_view, padded_positions
from pyrseg_jax.evaluation.predict import predict_from, run
from pyrseg_jax.evaluation.programs import forget_programs, num_compiled
from pyrseg_jax.evaluation.views import Protocol, window_starts
from pyrseg_jax.models.segmenter import Pyramids, Segmenter

Images = Real[np.ndarray, "_ _ _ c"]
Unity = tuple[Float[Array, "n _ _"], ...]
# (logits, labels (N, H, W) of the same size as the images) → loss of each image.
ImageLosses = Callable[[Pyramids, Integer[Array, "n h w"]], Float[Array, "n"]]
# Per finest-level position of the whole image: the sum of the windows' probabilities (N, P, C), the number of windows (P,),
# and the level that decides (N, P).
Joined = tuple[Float[Array, "n p c"], Float[Array, "p"], Int32[Array, "n p"]]


class ViewPredictor:
    """Predict the views of batches of images as an evaluation protocol says.

    It compiles one program per size that the network sees.

    Args:
      model: the segmenter.
      protocol: the evaluation protocol.
      threshold: τ of the fuser.
      replicated: sharding of the variables; None on a single device.
      rows: sharding of arrays whose first axis is images; None on a single device.
      image_losses: the loss of each image, for `with_losses`.
      has_disagreement: whether to add the disagreement of the levels to the views; not for protocols with windows.
    """

    def __init__(
        self,
        model: Segmenter,
        protocol: Protocol,
        threshold: float,
        replicated: Any = None,
        rows: Any = None,
        image_losses: ImageLosses | None = None,
        has_disagreement: bool = False,
    ):
        self._protocol, self._finest, self._stride = protocol, model.strides[-1], model.prediction_strides[-1]

        def predict_view(variables: dict, images: Array, is_mirrored: Array) -> tuple[PaddedView, Unity]:
            prediction = predict_from(run(model, variables, images), threshold)
            disagreement = disagreement_of(prediction) if has_disagreement else None
            return pad_view(prediction, is_mirrored, disagreement), prediction.unity

        sharded = {} if rows is None else {"in_shardings": (replicated, rows, rows), "out_shardings": rows}
        self._predict_view = jax.jit(predict_view, **sharded)
        self._predict_with_losses = None
        if image_losses is not None and protocol.window_px is None:

            def predict_with_losses(variables: dict, images: Array, is_mirrored: Array, labels: Array) -> tuple:
                pyramids = run(model, variables, images)
                prediction = predict_from(pyramids, threshold)
                return pad_view(prediction, is_mirrored), prediction.unity, image_losses(pyramids, labels)

            sharded = {} if rows is None else {"in_shardings": (replicated, rows, rows, rows), "out_shardings": rows}
            self._predict_with_losses = jax.jit(predict_with_losses, **sharded)
        self._put = functools.partial(jax.device_put, device=rows)

    @property
    def is_single(self) -> bool:
        """Return whether the network sees an image only once and as a whole, so that each pixel has one pyramid."""
        protocol = self._protocol
        return len(protocol.scales) == 1 and not protocol.is_mirrored and protocol.window_px is None

    def lower(self, variables: dict, images: Any, is_mirrored: Any) -> jax.stages.Lowered:
        """Lower the program of one view from shapes, to compile it ahead of time."""
        return self._predict_view.lower(variables, images, is_mirrored)

    def num_programs(self) -> int:
        """Return how many programs were compiled to predict views."""
        with_losses = self._predict_with_losses
        return num_compiled(self._predict_view) + (0 if with_losses is None else num_compiled(with_losses))

    def drop_programs_above(self, most: int) -> None:
        """Forget all programs if there are more than this, so that images of ever new sizes do not fill the memory."""
        if self.num_programs() > most:
            forget_programs(self._predict_view)

    def with_losses(
        self, variables: dict, images: Sequence[Images], labels: UInt[np.ndarray, "n h w"]
    ) -> tuple[list[PaddedView], Unity, Float[Array, "n"] | None]:
        """Predict all views of a batch as a call does, and also return the loss of each image in the first view.

        Args:
          variables, images: as for a call.
          labels: label maps at the size of the first scale.

        Returns:
          The losses are None without `image_losses`, and for protocols that cut images into windows.
        """
        if self._predict_with_losses is None:
            return *self(variables, images), None
        flags = np.zeros(len(labels), bool)
        first, unity, losses = self._predict_with_losses(variables, *self._put((images[0], flags, labels)))
        views, _ = self(variables, images, num_done=1)
        return [first, *views], unity, losses

    def __call__(self, variables: dict, images: Sequence[Images], num_done: int = 0) -> tuple[list[PaddedView], Unity]:
        """Predict all views of a batch.

        Args:
          variables: the model's variables.
          images: the batch, resized to each scale of the protocol.
          num_done: number of the first views that are left out.

        Returns:
          The views, of which the first is the first scale as it is, and that view's unity pyramid. An image in windows has no
          unity pyramid of its own; then the pyramid is that of the last window.
        """
        views, first_unity = [], ()
        window = self._protocol.window_px
        mirrorings = (False, True) if self._protocol.is_mirrored else (False,)
        for batch, is_mirrored in itertools.islice(itertools.product(images, mirrorings), num_done, None):
            pixels = np.ascontiguousarray(batch[:, :, ::-1]) if is_mirrored else batch
            if window is None or max(pixels.shape[1:3]) <= window:
                flags = np.full(len(pixels), is_mirrored)
                view, unity = self._predict_view(variables, *self._put((pixels, flags)))
            else:
                view, unity = self._predict_windows(variables, pixels, is_mirrored, window)
            first_unity = unity if not views else first_unity
            views.append(view)
        return views, first_unity

    def _predict_windows(
        self, variables: dict, images: Images, is_mirrored: bool, window: int
    ) -> tuple[PaddedView, Unity]:
        """Predict overlapping windows of a view and average their fused probabilities."""
        height, width = images.shape[1:3]
        stride, flags = self._stride, np.full(len(images), is_mirrored)
        grid = np.array([height, width], np.int32) // stride
        joined, last, counts = None, None, 0
        for top in window_starts(height, window, self._finest):
            for left in window_starts(width, window, self._finest):
                part = np.ascontiguousarray(images[:, top : top + window, left : left + window])
                last = self._predict_view(variables, *self._put((part, flags)))
                at = np.array([top // stride, left // stride, *grid], np.int32)
                joined = _join_window(joined or _no_windows(last[0], grid.prod()), last[0], at)
                counts = last[0].level_counts + counts
        assert joined is not None and last is not None, "every side has a window"
        total, times, level = joined
        joined_view = last[0].replace(
            cells=total / jnp.maximum(times, 1)[:, None],
            chosen=jnp.tile(jnp.arange(total.shape[1], dtype=jnp.int32), (len(images), 1)),
            level=level,
            level_counts=counts,
            grid=jnp.tile(jnp.asarray(grid), (len(images), 1)),
        )
        return joined_view, last[1]


def _no_windows(view: PaddedView, num_positions: np.integer) -> Joined:
    """Return what `_join_window` adds the first window to."""
    n, _, num_classes = view.cells.shape
    size = padded_positions(int(num_positions))
    return jnp.zeros((n, size, num_classes)), jnp.zeros(size), jnp.zeros((n, size), jnp.int32)


@jax.jit
def _join_window(joined: Joined, window: PaddedView, at: Int32[Array, "4"]) -> Joined:
    """Add a window's fused probabilities to those of the whole image.

    Args:
      joined: the joined prediction of the windows before this one.
      window: the prediction of this window.
      at: top and left of the window, height and width of the image, all in finest-level positions.
    """
    total, times, level = joined
    top, left, _, width = at
    window_height, window_width = window.grid[0]
    position = jnp.arange(window.chosen.shape[1])
    to = (top + position // window_width) * width + left + position % window_width
    to = jnp.where(position < window_height * window_width, to, times.size)  # padding goes past the end and is dropped
    probs = jnp.take_along_axis(window.cells, window.chosen[..., None], axis=1)
    return (
        total.at[:, to].add(probs, mode="drop"),
        times.at[to].add(1, mode="drop"),
        level.at[:, to].set(window.level, mode="drop"),
    )
