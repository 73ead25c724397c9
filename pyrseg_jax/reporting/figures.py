"""The figure of a prediction: both pyramids, the fused map, and a legend."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt
from PIL import Image

from pyrseg_jax.conventions import void_of
from pyrseg_jax.reporting import palette
from pyrseg_jax.reporting.cells import DONE, MIXED, TAKEN, cell_states, check_result, draw_cell_edges, stretch
from pyrseg_jax.reporting.result import Result
from pyrseg_jax.reporting.sheet import FAINT_INK, MARGIN_PX, SWATCH_PX, Grid, Sheet, is_drawable

_TITLE_LINE_PX = 26
_ROW_GAP_PX = 28
_COLOR_BAR_HEIGHT_PX = 100


@dataclasses.dataclass(frozen=True)
class _Scene:
    """The arguments of `pyramid_figure`, and quantities derived from them."""

    result: Result
    truth: np.ndarray | None

    def check(self) -> None:
        num_classes = len(self.colors)
        palette.check_image(self.result.image)
        palette.check_colors(self.colors)
        check_result(self.result)
        if self.truth is not None:
            palette.check_labels("truth", self.truth, self.result.image.shape[:2], num_classes)

    @functools.cached_property
    def colors(self) -> np.ndarray:
        return palette.colors_of(self.result.label_space)

    @functools.cached_property
    def states(self) -> tuple[np.ndarray, ...]:
        return cell_states(self.result.unity, self.result.threshold, self.result.semantic[-1].shape)

    @functools.cached_property
    def shares(self) -> list[str]:
        """The share of finest-level positions that each level decides."""
        return [_percent((cells == TAKEN).mean()) for cells in self.states]


def pyramid_figure(
    result: Result, *, truth: UInt[np.ndarray, "h w"] | None = None, title: str | None = None
) -> Image.Image:
    """Draw how a pyramid becomes a segmentation: one column per level, the fused result below, a legend.

    The first row shows the classes of each level, in color only where that level decides, so that each position is in color
    on exactly one level. The second row shows the unity probabilities. The third row shows the image, the fused map, the level
    that decides each position, and the ground truth if there is one.

    Args:
      result: the prediction. Its cells are stretched over the image, whatever size the network saw.
      truth: (H, W) train ids of the type of the labels.
      title: a line of text above the figure.

    Returns:
      An RGB image, 1800 px wide for up to 5 levels and wider for more.

    Raises:
      ValueError: naming what was found and what was expected, if the parts of the result do not fit together.
    """
    scene = _Scene(result, truth)
    scene.check()
    grid = Grid.fit(max(len(result.semantic), 3 if truth is None else 4), result.image.shape[:2])
    sheet = Sheet(grid.width_px)
    y = 28
    if title:
        sheet.text(MARGIN_PX, y, title, 24, width_px=grid.width_px - 2 * MARGIN_PX, is_bold=True)
        y += 50
    y = _place_semantic_row(sheet, grid, y, scene)
    if result.unity:
        y = _place_unity_row(sheet, grid, y, scene)
    y = _place_result_row(sheet, grid, y, scene)
    y = _place_legend(sheet, grid, y, scene)
    return sheet.render(y + 20)


def legend_entries(
    maps: Sequence[np.ndarray], class_names: Sequence[str], limit: int = 24
) -> tuple[list[tuple[int, str]], int]:
    """List the classes that occur in `maps`, most frequent first.

    Args:
      maps: arrays of train ids of any shape and one type; void is not counted.
      class_names: C names. A name that this machine's fonts cannot draw becomes "class ID".
      limit: the most classes to list.

    Returns:
      At most `limit` pairs (train id, name), and the number of classes left out.
    """
    void = void_of(maps[0].dtype)
    counts = np.sum([np.bincount(np.ravel(ids), minlength=void + 1) for ids in maps], axis=0)[:void]
    present = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    listed = [(i, class_names[i] if is_drawable(class_names[i]) else f"class {i}") for i in present[:limit]]
    return listed, len(present) - len(listed)


def _place_semantic_row(sheet: Sheet, grid: Grid, y: int, scene: _Scene) -> int:
    """Place the classes of each level, gray where another level decides; return where the next row begins."""
    meaning = "class of each cell, shown where its own level decides"
    y = _place_heading(sheet, grid, y, "Semantic pyramid", meaning)
    mixed = palette.mixed_texture(grid.panel)
    for index, (classes, cells) in enumerate(zip(scene.result.semantic, scene.states)):
        state = stretch(cells, grid.panel)
        pixels = palette.paint_labels(stretch(classes, grid.panel), scene.colors)
        pixels[state == MIXED] = mixed[state == MIXED]
        pixels[state == DONE] = palette.DONE_GRAY
        name = f"level {index + 1} · stride {scene.result.strides[index]} · takes {scene.shares[index]}"
        _place_panel(sheet, grid, index, y, name, draw_cell_edges(pixels, cells.shape))
    return y + _TITLE_LINE_PX + grid.panel[0] + _ROW_GAP_PX


def _place_unity_row(sheet: Sheet, grid: Grid, y: int, scene: _Scene) -> int:
    """Place the unity probabilities, and their color bar in the column of the finest level, which has none."""
    meaning = "probability that a cell holds one class only; faded where a coarser level has decided"
    y = _place_heading(sheet, grid, y, "Unity pyramid", meaning)
    for index, probability in enumerate(scene.result.unity):
        cells = scene.states[index]
        pixels = palette.probability_colors(stretch(probability, grid.panel))
        is_done = stretch(cells, grid.panel) == DONE
        pixels[is_done] = 0.2 * pixels[is_done] + 0.8 * palette.DONE_GRAY
        num_open = int((cells != DONE).sum())
        name = f"level {index + 1} · all done by coarser levels"
        if num_open:
            share = _percent((cells == TAKEN).sum() / num_open)
            name = f"level {index + 1} · {share} of open cells are unit-cells"
        _place_panel(sheet, grid, index, y, name, draw_cell_edges(pixels, cells.shape))
    _place_color_bar(sheet, grid, y, len(scene.result.unity), scene.result.threshold)
    return y + max(_TITLE_LINE_PX + grid.panel[0], _COLOR_BAR_HEIGHT_PX) + _ROW_GAP_PX


def _place_color_bar(sheet: Sheet, grid: Grid, y: int, column: int, threshold: float) -> None:
    x, bar_px = grid.left(column), min(grid.column_px, 340)
    sheet.text(x, y, f"level {column + 1} · always taken", width_px=grid.column_px)
    rule = "takes all that no coarser level took"
    sheet.text(x, y + 24, rule, 14, width_px=grid.column_px, color=FAINT_INK)
    bar = np.tile(palette.probability_colors(np.linspace(0, 1, bar_px)), (16, 1, 1))
    mark = min(round(threshold * bar_px), bar_px - 2)
    bar[:, mark : mark + 2] = 255
    sheet.picture(x + 1, y + 58, bar)
    # The threshold's value is always centered, wherever its mark is, so that it never overlaps the texts at both ends.
    sheet.text(x, y + 80, "0 mixed", 14, width_px=80, color=FAINT_INK)
    sheet.text(x + bar_px // 2 - 55, y + 80, f"threshold {threshold:.3g}", 14, width_px=115, color=FAINT_INK)
    sheet.text(x + bar_px - 44, y + 80, "1 unit", 14, width_px=60, color=FAINT_INK)


def _place_result_row(sheet: Sheet, grid: Grid, y: int, scene: _Scene) -> int:
    """Place the image, the fused map, the deciding levels with their shares, and the ground truth."""
    meaning = "each position from the coarsest level that calls its cell a unit-cell"
    y = _place_heading(sheet, grid, y, "Fused", meaning)
    labels, truth = scene.result.labels, scene.truth
    panel_height, panel_width = grid.panel
    photograph = Image.fromarray(scene.result.image).resize((panel_width, panel_height), Image.Resampling.LANCZOS)
    _place_panel(sheet, grid, 0, y, "photograph", np.asarray(photograph))
    name = "fused prediction"
    if truth is not None and (is_labeled := truth != void_of(truth.dtype)).any():
        name += f" · {_percent((labels == truth)[is_labeled].mean())} of pixels right"
    _place_panel(sheet, grid, 1, y, name, palette.paint_labels(stretch(labels, grid.panel), scene.colors))
    tints = palette.level_colors(len(scene.shares))
    _place_panel(sheet, grid, 2, y, "level that decided", tints[stretch(scene.result.level, grid.panel)])
    if truth is not None:
        pixels = palette.paint_labels(stretch(truth, grid.panel), scene.colors)
        _place_panel(sheet, grid, 3, y, "ground truth", pixels)
    y += _TITLE_LINE_PX + grid.panel[0] + 12
    names = [f"stride {s}: {share}" for s, share in zip(scene.result.strides, scene.shares)]
    return y + sheet.legend(grid.left(2), y, grid.column_px, list(zip(names, tints))) + 18


def _place_legend(sheet: Sheet, grid: Grid, y: int, scene: _Scene) -> int:
    """Place the legend of classes, grays and void; return where the sheet ends."""
    final = [scene.result.labels] if scene.truth is None else [scene.result.labels, scene.truth]
    # A class may win cells and yet lose every pixel in the final interpolation. Its color is still in the figure.
    taken = [classes[cells == TAKEN] for classes, cells in zip(scene.result.semantic, scene.states)]
    listed, num_more = legend_entries([*final, *taken], scene.result.class_names)
    classes = [(name, scene.colors[i]) for i, name in listed]
    if num_more:
        classes.append((f"+ {num_more} more", None))
    marks = []
    if scene.result.unity:
        marks.append(("mixed cell: a finer level decides", palette.mixed_texture((SWATCH_PX, SWATCH_PX))))
        marks.append(("done by a coarser level", np.full(3, palette.DONE_GRAY, np.uint8)))
    if any((labels == void_of(labels.dtype)).any() for labels in final):
        marks.append(("void: no ground truth", palette.void_texture((SWATCH_PX, SWATCH_PX))))
    y = _place_heading(sheet, grid, y, "Legend", "")
    for entries in filter(None, (classes, marks)):
        y += sheet.legend(MARGIN_PX, y, grid.width_px - 2 * MARGIN_PX, entries) + 10
    return y


def _place_heading(sheet: Sheet, grid: Grid, y: int, name: str, meaning: str) -> int:
    width_px = grid.width_px - 2 * MARGIN_PX
    used_px = sheet.text(MARGIN_PX, y, name, 18, width_px=width_px, is_bold=True)
    sheet.text(MARGIN_PX + used_px + 14, y + 2, meaning, 16, width_px=width_px - used_px - 14, color=FAINT_INK)
    return y + 36


def _place_panel(sheet: Sheet, grid: Grid, column: int, y: int, name: str, pixels: np.ndarray) -> None:
    sheet.text(grid.left(column), y, name, width_px=grid.column_px)
    sheet.picture(grid.left(column), y + _TITLE_LINE_PX, pixels)


def _percent(share: float) -> str:
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"
