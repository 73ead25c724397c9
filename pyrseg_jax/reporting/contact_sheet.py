"""A sheet of images in rows: a line of text above each, then pictures side by side, and a legend of the classes at the end."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.reporting import palette
from pyrseg_jax.reporting.figures import legend_entries
from pyrseg_jax.reporting.sheet import FAINT_INK, MARGIN_PX, Sheet

PANEL_PX = 420, 300  # the largest width and height of a picture
_WIDTH_PX, _GAP_PX, _MOST_CLASSES = 1420, 24, 40


class Row(NamedTuple):
    """A row of the sheet.

    title: a line of text.
    panels: pictures (h, w, 3) uint8 of one size.
    """

    title: str
    panels: tuple[np.ndarray, ...]


def contact_sheet(
    title: str, meaning: str, rows: Sequence[Row], maps: Sequence[np.ndarray], label_space: LabelSpace
) -> Image.Image:
    """Draw the rows.

    Args:
      title: the heading.
      meaning: what the pictures of a row show, from left to right.
      rows: the rows, first to last.
      maps: train ids whose classes the legend lists.
      label_space: the classes.
    """
    sheet, whole_px = Sheet(_WIDTH_PX), _WIDTH_PX - 2 * MARGIN_PX
    sheet.text(MARGIN_PX, 28, title, 24, width_px=whole_px, is_bold=True)
    sheet.text(MARGIN_PX, 62, meaning, 16, width_px=whole_px, color=FAINT_INK)
    top = 100
    for row in rows:
        sheet.text(MARGIN_PX, top, row.title, 16, width_px=whole_px)
        top += 28
        left = MARGIN_PX
        for panel in row.panels:
            shown = fit_panel(panel)
            sheet.picture(left, top, shown)
            left += shown.shape[1] + _GAP_PX
        top += max((fit_panel(panel).shape[0] for panel in row.panels), default=0) + 26
    if maps:
        colors = palette.colors_of(label_space)
        listed, num_more = legend_entries(maps, label_space.names, _MOST_CLASSES)
        entries: list[tuple[str, np.ndarray | None]] = [(name, colors[i]) for i, name in listed]
        entries += [(f"+ {num_more} more", None)] if num_more else []
        top += sheet.legend(MARGIN_PX, top, whole_px, entries) if entries else 0
    return sheet.render(top + 20)


def fit_panel(picture: np.ndarray) -> np.ndarray:
    """Return a picture at the largest size that fits a panel, but no more than twice its own."""
    height, width = picture.shape[:2]
    factor = min(PANEL_PX[0] / width, PANEL_PX[1] / height, 2.0)
    return resize_image(picture, (max(1, round(height * factor)), max(1, round(width * factor))))


def with_box(picture: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return a picture with a white frame, edged in black, around a box (left, top, width, height)."""
    drawn = picture.copy()
    left, top, width, height = box
    thick = max(1, max(picture.shape[:2]) // 200)
    for margin, value in ((3 * thick, 0), (2 * thick, 255)):
        for grown in range(margin - (thick if value else 3 * thick), margin):
            rows = np.clip([top - 1 - grown, top + height + grown], 0, picture.shape[0] - 1)
            columns = np.clip([left - 1 - grown, left + width + grown], 0, picture.shape[1] - 1)
            drawn[rows, columns[0] : columns[1] + 1] = value
            drawn[rows[0] : rows[1] + 1, columns] = value
    return drawn
