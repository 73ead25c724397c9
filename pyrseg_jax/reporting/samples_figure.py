"""The picture of augmented training images: each image, its labels over it, and a legend."""

from __future__ import annotations

import numpy as np
from jaxtyping import Real, UInt
from PIL import Image

from pyrseg_jax.conventions import void_of
from pyrseg_jax.data.image_space import picture_of
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.resample import resize_image, resize_labels
from pyrseg_jax.reporting import palette
from pyrseg_jax.reporting.figures import legend_entries
from pyrseg_jax.reporting.sheet import FAINT_INK, MARGIN_PX, SWATCH_PX, Grid, Sheet

NUM_COLUMNS = 6
_MOST_CLASSES = 40  # in the legend
_ROW_GAP_PX = 10


def samples_figure(
    images: Real[np.ndarray, "n s s c"], labels: UInt[np.ndarray, "n s s"], label_space: LabelSpace, title: str
) -> Image.Image:
    """Draw training images in rows of six; below each image are its labels, blended over it. Void is hatched.

    Args:
      images: the augmented images, RGB or with other channels, of which the picture shows the first ones.
      labels: their train ids.
      label_space: the names and colors of the classes.
      title: a line of text above the figure.
    """
    colors, void = palette.colors_of(label_space), void_of(labels.dtype)
    grid = Grid.fit(NUM_COLUMNS, images.shape[1:3])
    sheet = Sheet(grid.width_px)
    whole_px = grid.width_px - 2 * MARGIN_PX
    sheet.text(MARGIN_PX, 28, title, 24, width_px=whole_px, is_bold=True)
    meaning = "above, the input of the network; below, the ground truth over it"
    sheet.text(MARGIN_PX, 62, meaning, 16, width_px=whole_px, color=FAINT_INK)
    top = 96
    for first in range(0, len(images), NUM_COLUMNS):
        for column, index in enumerate(range(first, min(first + NUM_COLUMNS, len(images)))):
            image, label = resize_image(picture_of(images[index]), grid.panel), resize_labels(labels[index], grid.panel)
            sheet.picture(grid.left(column), top, image)
            below = np.where(
                (label == void)[..., None], palette.void_texture(grid.panel), _overlay(image, label, colors)
            )
            sheet.picture(grid.left(column), top + grid.panel[0] + _ROW_GAP_PX // 2, below)
        top += 2 * (grid.panel[0] + _ROW_GAP_PX) + 14
    listed, num_more = legend_entries([labels], label_space.names, _MOST_CLASSES)
    entries: list[tuple[str, np.ndarray | None]] = [(name, colors[i]) for i, name in listed]
    if num_more:
        entries.append((f"+ {num_more} more", None))
    if (labels == void).any():
        entries.append(("void: not part of the loss", palette.void_texture((SWATCH_PX, SWATCH_PX))))
    top += sheet.legend(MARGIN_PX, top, whole_px, entries)
    return sheet.render(top + 20)


def _overlay(image: np.ndarray, label: np.ndarray, colors: np.ndarray) -> np.ndarray:
    return palette.overlay(np.ascontiguousarray(image), label, colors)
