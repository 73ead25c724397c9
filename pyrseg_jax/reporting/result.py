"""The prediction for one image, as users get it."""

import dataclasses
import io

import numpy as np
from PIL import Image

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import escaped
from pyrseg_jax.reporting.palette import colors_of, overlay


@dataclasses.dataclass(frozen=True)
class Result:
    """The prediction for one image.

    Attributes:
      labels: (H, W) train ids at the image's own size: indices into `class_names`, uint8, or uint16 for more than 255 classes.
      probs: (h, w, C) fused class probabilities at the finest level.
      level: (h, w) the level that decides each position; 0 is the coarsest.
      unity: L-1 maps (h_l, w_l), coarse → fine: the probability that a cell holds a single class.
      semantic: L maps (h_l, w_l) of the same type: each level's most likely class.
      strides: strides of the levels, in pixels of the network's input.
      image: (H, W, 3) uint8 RGB, the segmented image; of an image with other channels, a picture of the first ones.
      label_space: the classes.
      threshold: τ of the fuser.
    """

    # No shapes here: `cells.check_result` names the parts that do not fit together, in words for users.
    labels: np.ndarray
    probs: np.ndarray
    level: np.ndarray
    unity: tuple[np.ndarray, ...]
    semantic: tuple[np.ndarray, ...]
    strides: tuple[int, ...]
    image: np.ndarray
    label_space: LabelSpace
    threshold: float

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class."""
        return self.label_space.names

    def overlay(self) -> Image.Image:
        """Draw the class colors over the image."""
        return overlaid(self.image, self.labels, self.label_space)

    def show_pyramid(self) -> Image.Image:
        """Draw both pyramids, the fused map, and a legend. A notebook displays the picture; `.save(…)` writes it to a file."""
        from pyrseg_jax.reporting.figures import pyramid_figure  # here, because figures imports this file

        return pyramid_figure(self)

    def _repr_png_(self) -> bytes:
        """Show the overlay when a notebook displays a result."""
        data = io.BytesIO()
        self.overlay().save(data, "PNG")
        return data.getvalue()

    def __repr__(self) -> str:
        found = escaped(", ".join(self.class_names[i] for i in np.unique(self.labels)[:8]))
        return f"Result({self.labels.shape[0]} × {self.labels.shape[1]} pixels; classes found: {found})"


def overlaid(image: np.ndarray, labels: np.ndarray, label_space: LabelSpace) -> Image.Image:
    """Draw the class colors over an image (H, W, 3) uint8, given its train ids (H, W) uint8."""
    return Image.fromarray(overlay(image, labels, colors_of(label_space)))
