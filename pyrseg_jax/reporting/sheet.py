"""A white sheet on which pictures and texts are placed by pixel and then drawn all at once."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from PIL import Image

INK = "#1b1f24"
FAINT_INK = "#59616b"
MARGIN_PX = 40
SWATCH_PX = 16

_WIDTH_PX = 1800
_GAP_PX = 24
_NARROWEST_COLUMN_PX = 270  # a panel's title still fits
_TALLEST_PANEL_PX = 620
_SMALLEST_TEXT_PX = 10
_LEGEND_LINE_PX = 26
_LEGEND_TEXT_PX = 15
# DejaVu Sans comes with matplotlib. The others, where installed, cover scripts that it lacks.
_FONT_FAMILIES = (
    "DejaVu Sans", "Noto Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR",
    "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Thai", "WenQuanYi Zen Hei", "Hiragino Sans",
    "Microsoft YaHei", "Malgun Gothic", "Arial Unicode MS",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Text:
    x: int
    baseline: int
    string: str
    size_px: int
    color: str
    is_bold: bool


@dataclasses.dataclass(frozen=True)
class Grid:
    """Columns of equal width, and the size of the image in each of them."""

    width_px: int
    column_px: int
    panel: tuple[int, int]  # height, width

    @classmethod
    def fit(cls, num_columns: int, image_shape: tuple[int, int]) -> Grid:
        """Choose sizes for an image of this (height, width), keeping its aspect ratio."""
        fixed = 2 * MARGIN_PX + (num_columns - 1) * _GAP_PX
        column_px = max((_WIDTH_PX - fixed) // num_columns, _NARROWEST_COLUMN_PX)
        scale = min(column_px / image_shape[1], _TALLEST_PANEL_PX / image_shape[0])
        panel = (max(1, round(image_shape[0] * scale)), max(1, round(image_shape[1] * scale)))
        return cls(max(_WIDTH_PX, fixed + num_columns * column_px), column_px, panel)

    def left(self, column: int) -> int:
        """Return where a column begins, in pixels from the left edge of the sheet."""
        return MARGIN_PX + column * (self.column_px + _GAP_PX)


class Sheet:
    """Collect pictures and texts, given in pixels from the top left corner, and render them."""

    def __init__(self, width_px: int):
        self.width_px = width_px
        self._pictures: list[tuple[int, int, np.ndarray]] = []
        self._texts: list[_Text] = []

    def picture(self, x: int, y: int, pixels: np.ndarray) -> None:
        """Place `pixels` (h, w, 3) uint8, unscaled, inside a thin gray frame, so that white pixels do not blend into the page."""
        framed = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), constant_values=170)
        self._pictures.append((x - 1, y - 1, framed))

    def text(
        self,
        x: int,
        y: int,
        string: str,
        size_px: int = 15,
        *,
        width_px: int,
        color: str = INK,
        is_bold: bool = False,
    ) -> int:
        """Place one line of text with its top at `y`, shrunk or cut to fit `width_px`; return its width in pixels."""
        string = "".join(c if is_drawable(c) else "?" for c in " ".join(string.split()))
        while size_px > _SMALLEST_TEXT_PX and text_width_px(string, size_px, is_bold) > width_px:
            size_px -= 1
        string = _cut(string, size_px, is_bold, width_px)
        self._texts.append(_Text(x, y + size_px, string, size_px, color, is_bold))
        return text_width_px(string, size_px, is_bold)

    def legend(self, x: int, y: int, width_px: int, entries: list[tuple[str, np.ndarray | None]]) -> int:
        """Place swatches with names in aligned columns, row by row; return the height used in pixels.

        Args:
          x, y: the top left corner.
          width_px: width of the whole legend.
          entries: pairs of a name and a swatch, which is a color (3,), a texture (16, 16, 3), or None.
        """
        pads_px = SWATCH_PX + 8, 26
        widest = max(text_width_px(" ".join(name.split()), _LEGEND_TEXT_PX) for name, _ in entries)
        # One long name must not take the columns of all others.
        column_px = min(widest + sum(pads_px), max(width_px // 5, 300), width_px)
        num_columns = max(1, width_px // column_px)
        for index, (name, swatch) in enumerate(entries):
            row, column = divmod(index, num_columns)
            left, top = x + column * column_px, y + row * _LEGEND_LINE_PX
            text_left = left
            if swatch is not None:
                self.picture(left + 1, top + 1, np.broadcast_to(swatch, (SWATCH_PX, SWATCH_PX, 3)))
                text_left = left + pads_px[0]
            available_px = column_px - (text_left - left) - 12
            self.text(text_left, top, name, _LEGEND_TEXT_PX, width_px=available_px)
        return -(-len(entries) // num_columns) * _LEGEND_LINE_PX

    def render(self, height_px: int) -> Image.Image:
        """Draw everything. The pixels of the pictures keep their exact values."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        paper = np.full((height_px, self.width_px, 3), 255, np.uint8)
        for x, y, pixels in self._pictures:
            paper[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        # At 72 dots per inch a point is a pixel. The small addition keeps the truncation to whole pixels from losing one.
        figure = Figure(figsize=((self.width_px + 0.01) / 72, (height_px + 0.01) / 72), dpi=72)
        canvas = FigureCanvasAgg(figure)
        figure.figimage(paper, origin="upper")
        for text in self._texts:
            figure.text(
                text.x / self.width_px,
                1 - text.baseline / height_px,
                text.string,
                color=text.color,
                fontproperties=_font(text.size_px, text.is_bold),
                parse_math=False,
            )
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


@functools.lru_cache(maxsize=4096)
def text_width_px(string: str, size_px: int, is_bold: bool = False) -> int:
    """Measure one line of text in pixels, rounded up."""
    from matplotlib.backends.backend_agg import RendererAgg

    measured = RendererAgg(1, 1, 72).get_text_width_height_descent(string, _font(size_px, is_bold), False)
    return math.ceil(measured[0])


def is_drawable(string: str) -> bool:
    """Return whether this machine's fonts have every character of `string`."""
    return all(c.isspace() or any(f.get_char_index(ord(c)) for f in _installed_fonts()) for c in string)


def _cut(string: str, size_px: int, is_bold: bool, width_px: int) -> str:
    """Shorten `string` to the longest prefix that fits with an ellipsis."""
    if text_width_px(string, size_px, is_bold) <= width_px:
        return string
    fitting, too_long = 0, len(string)
    while too_long - fitting > 1:
        middle = (fitting + too_long) // 2
        if text_width_px(string[:middle].rstrip() + "…", size_px, is_bold) <= width_px:
            fitting = middle
        else:
            too_long = middle
    return string[:fitting].rstrip() + "…"


@functools.cache
def installed_families() -> list[str]:
    """List the fonts that texts are drawn with, on this machine: each covers what those before it lack."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return [name for name in _FONT_FAMILIES if name in installed]


@functools.cache
def _installed_fonts() -> list:
    from matplotlib import font_manager

    return [font_manager.get_font(font_manager.findfont(name)) for name in installed_families()]


def _font(size_px: int, is_bold: bool):
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=installed_families(), size=size_px, weight="bold" if is_bold else "normal")
