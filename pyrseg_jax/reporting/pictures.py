"""The three files that a prediction is written to."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.reporting.figures import PyramidLike, default_colors, overlay, pyramid_figure


def save_pictures(
    folder: Path,
    name: str,
    image: UInt8[np.ndarray, "h w 3"],
    pyramid: PyramidLike,
    label_space: LabelSpace,
    threshold: float,
    truth: UInt8[np.ndarray, "h w"] | None = None,
) -> None:
    """Write `NAME.png`, `NAME_overlay.jpg` and `NAME_pyramid.png`.

    Args:
      folder: exists.
      name: NAME.
      image: what was segmented.
      pyramid: its prediction, with train ids.
      label_space: `NAME.png` holds the data set's own class numbers, in one channel.
      threshold: τ that the pyramid was fused with.
      truth: train ids of the ground truth, if there is one.
    """
    labels = Image.fromarray(label_space.to_file_values(pyramid.labels))
    labels.save(folder / f"{name}.png")
    colors = colors_of(label_space)
    Image.fromarray(overlay(image, pyramid.labels, colors)).save(folder / f"{name}_overlay.jpg", quality=92)
    figure = pyramid_figure(image, pyramid, colors, label_space.names, threshold=threshold, truth=truth, title=name)
    figure.save(folder / f"{name}_pyramid.png")


def colors_of(label_space: LabelSpace) -> UInt8[np.ndarray, "c 3"]:
    """Return the data set's own colours, or distinguishable ones if it has none."""
    return np.array(label_space.colors, np.uint8) if label_space.colors else default_colors(label_space.num_classes)
