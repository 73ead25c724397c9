"""Draw the fronts of houses as flat textures: walls, rows of windows, doors, shop fronts."""

from dataclasses import dataclass

import cv2
import numpy as np

from pyrseg_jax.scenes.light import Light
from pyrseg_jax.scenes.textures import MATERIALS, noise_patch, vary

_WALLS = [
    ("bricks", (0.60, 0.33, 0.26)), ("bricks", (0.50, 0.34, 0.28)), ("bricks", (0.70, 0.56, 0.42)),
    ("plain", (0.86, 0.80, 0.68)), ("plain", (0.80, 0.66, 0.50)), ("plain", (0.84, 0.84, 0.80)),
    ("plain", (0.72, 0.54, 0.46)), ("plain", (0.62, 0.66, 0.66)), ("plain", (0.84, 0.72, 0.52)),
    ("plain", (0.60, 0.68, 0.74)), ("stones", (0.66, 0.60, 0.52)), ("plain", (0.56, 0.54, 0.52)),
]  # fmt: skip
_FRAMES = [(0.92, 0.91, 0.88), (0.30, 0.24, 0.20), (0.85, 0.83, 0.78), (0.22, 0.30, 0.28)]
_ROOFS = [(0.56, 0.29, 0.22), (0.34, 0.31, 0.31), (0.44, 0.32, 0.27), (0.27, 0.29, 0.33)]
_DOORS = [(0.35, 0.20, 0.13), (0.15, 0.28, 0.24), (0.45, 0.12, 0.12), (0.16, 0.20, 0.36)]


@dataclass(frozen=True)
class FacadeStyle:
    """The materials and measures that all sides of a house share; lengths are in meters."""

    material: str
    wall: np.ndarray
    frame: np.ndarray
    roof: np.ndarray
    door: np.ndarray
    floor_m: float
    bay_m: float
    window_m: tuple[float, float]
    has_shop: bool
    has_shutters: bool
    is_glassy: bool


def draw_style(rng: np.random.Generator, is_urban: bool) -> FacadeStyle:
    """Draw the materials and measures of a house."""
    material, wall = _WALLS[int(rng.integers(len(_WALLS)))]
    bay = rng.uniform(2.0, 3.2)
    is_glassy = bool(is_urban and rng.random() < 0.12)
    width = bay * (0.85 if is_glassy else rng.uniform(0.4, 0.6))
    return FacadeStyle(
        material="plain" if is_glassy else material,
        wall=vary((0.5, 0.53, 0.56) if is_glassy else wall, rng, 0.1),
        frame=np.array(_FRAMES[int(rng.integers(len(_FRAMES)))]),
        roof=vary(_ROOFS[int(rng.integers(len(_ROOFS)))], rng, 0.1),
        door=vary(_DOORS[int(rng.integers(len(_DOORS)))], rng, 0.1),
        floor_m=float(rng.uniform(2.9, 3.6)),
        bay_m=float(bay),
        window_m=(float(width), float(rng.uniform(1.3, 1.9))),
        has_shop=bool(is_urban and rng.random() < 0.5),
        has_shutters=bool(not is_glassy and rng.random() < 0.2),
        is_glassy=is_glassy,
    )


class _Sheet:
    """A texture on which rectangles are drawn, in meters from the lower left corner."""

    def __init__(self, texture: np.ndarray, height_m: float, texels_per_m: float):
        self.texture, self.height_m, self.texels_per_m = np.ascontiguousarray(texture), height_m, texels_per_m

    def box(self, left, bottom, right, top, color) -> None:
        scale = self.texels_per_m * 8
        corners = np.array([[left, self.height_m - top], [right, self.height_m - bottom]]) * scale - 4
        first, last = np.rint(corners).astype(int)
        cv2.rectangle(
            self.texture,
            tuple(map(int, first)),
            tuple(map(int, last - 8)),
            tuple(map(float, color)),
            -1,
            shift=3,
        )


def facade(
    rng,
    style: FacadeStyle,
    width_m: float,
    height_m: float,
    texels_per_m: float,
    light: Light,
    is_front: bool,
):
    """Draw one side of a house (h, w, 3). The ground floor of the front has a door or a shop."""
    shape = max(int(round(height_m * texels_per_m)), 2), max(int(round(width_m * texels_per_m)), 2)
    wall = MATERIALS[style.material](rng, style.wall, *shape, texels_per_m).astype(np.float32)
    sheet = _Sheet(wall, height_m, texels_per_m)
    num_floors = max(int(height_m / style.floor_m), 1)
    has_windows = is_front or rng.random() < 0.6
    num_bays = max(int((width_m - 0.6) / style.bay_m), 1)
    margin = (width_m - num_bays * style.bay_m) / 2
    door_bay = int(rng.integers(num_bays))
    is_shop = is_front and style.has_shop and num_floors > 1
    for floor in range(num_floors if has_windows else 0):
        bottom = floor * style.floor_m
        if floor == 0 and is_shop:
            _shop_front(rng, sheet, style, width_m)
            continue
        for bay in range(num_bays):
            middle = margin + (bay + 0.5) * style.bay_m
            if floor == 0 and is_front and bay == door_bay:
                _door(sheet, style, middle)
            else:
                _window(rng, sheet, style, middle, bottom + 0.95, light)
    if is_front and num_floors > 1 and not style.is_glassy and rng.random() < 0.5:
        sheet.box(0, style.floor_m - 0.1, width_m, style.floor_m + 0.12, style.frame * 0.9)
    sheet.box(0, height_m - 0.35, width_m, height_m, np.minimum(style.wall * 1.15 + 0.05, 1))
    sheet.box(0, 0, width_m, 0.45, style.wall * 0.7)
    # Rain and exhaust leave the foot of a wall darker than its top.
    fade = np.linspace(1.03, 0.92, shape[0], dtype=np.float32)[:, None, None]
    return sheet.texture * fade


def _glass(rng, light: Light) -> np.ndarray:
    if light.name == "dusk" and rng.random() < 0.45:
        return vary((1.0, 0.84, 0.5), rng, 0.1)
    sky = (light.horizon + light.zenith) / 2
    return np.array((0.16, 0.18, 0.21)) + rng.uniform(0.0, 0.38) * (sky - 0.15)


def _window(rng, sheet: _Sheet, style: FacadeStyle, middle: float, bottom: float, light: Light) -> None:
    width, height = style.window_m
    left, right, top = middle - width / 2, middle + width / 2, min(bottom + height, sheet.height_m - 0.5)
    if top - bottom < 0.6:
        return
    if style.has_shutters:
        sheet.box(left - 0.42, bottom, left - 0.1, top, style.door)
        sheet.box(right + 0.1, bottom, right + 0.42, top, style.door)
    sheet.box(left - 0.1, bottom - 0.12, right + 0.1, top + 0.08, style.frame)
    glass = _glass(rng, light)
    sheet.box(left, bottom, right, top, glass)
    sheet.box(left, bottom + 0.55 * (top - bottom), right, top, np.minimum(glass * 1.18 + 0.02, 1))
    if rng.random() < 0.3:
        sheet.box(left, bottom, left + 0.3 * width, top, (0.80, 0.77, 0.72))  # a curtain
    if not style.is_glassy:
        sheet.box(middle - 0.035, bottom, middle + 0.035, top, style.frame)
        sheet.box(left - 0.18, bottom - 0.2, right + 0.18, bottom - 0.06, style.frame * 0.8)


def _door(sheet: _Sheet, style: FacadeStyle, middle: float) -> None:
    sheet.box(middle - 0.68, 0, middle + 0.68, 2.45, style.frame)
    sheet.box(middle - 0.52, 0, middle + 0.52, 2.3, style.door)
    sheet.box(middle - 0.34, 1.2, middle + 0.34, 2.05, style.door * 0.6)


def _shop_front(rng, sheet: _Sheet, style: FacadeStyle, width_m: float) -> None:
    sheet.box(0.2, 0, width_m - 0.2, 2.9, style.door * 0.8)
    left = 0.45
    while left < width_m - 1.2:
        right = min(left + rng.uniform(1.1, 2.4), width_m - 0.45)
        is_door = rng.random() < 0.25
        tone = vary((0.42, 0.42, 0.40), rng, 0.35)
        sheet.box(left, 0.05 if is_door else 0.6, right, 2.5, tone)
        for _ in range(3):  # goods in the window
            x = rng.uniform(left, max(right - 0.4, left + 0.01))
            sheet.box(x, 0.65, x + 0.35, 0.65 + rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.85, 3))
        left = right + 0.15


def roof_tiles(rng, color, width_m: float, length_m: float, texels_per_m: float) -> np.ndarray:
    """Draw a tiled slope (h, w, 3) with darker courses."""
    height, width = max(int(length_m * texels_per_m), 2), max(int(width_m * texels_per_m), 2)
    course = max(0.38 * texels_per_m, 3.0)
    rows = np.where(np.mod(np.arange(height), course) < 1.0, 0.8, 1.0).astype(np.float32)[:, None, None]
    tone = 1 + 0.08 * noise_patch(rng, height, width, 4.0, (6, 8))
    return np.asarray(color, np.float32) * rows * tone
