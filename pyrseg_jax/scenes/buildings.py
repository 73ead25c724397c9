"""Paint houses: fronts, side walls, gabled or flat roofs, chimneys and shop signs."""

import numpy as np

from pyrseg_jax.scenes.camera import Camera
from pyrseg_jax.scenes.canvas import Canvas
from pyrseg_jax.scenes.classes import BUILDING, SIGN
from pyrseg_jax.scenes.facades import FacadeStyle, draw_style, facade, roof_tiles
from pyrseg_jax.scenes.light import Light
from pyrseg_jax.scenes.solids import DOWN, UP, Face, roof_planes, visible_faces
from pyrseg_jax.scenes.textures import vary


def paint_building(canvas: Canvas, camera: Camera, light: Light, rng, base, height_m: float, is_urban: bool) -> None:
    """Paint a house on the base (4, 3); side 0 is its front."""
    if camera.is_beside(base):
        return
    style = draw_style(rng, is_urban)
    has_gable = not style.is_glassy and rng.random() < (0.5 if is_urban else 0.95)
    ridge_along = int(rng.random() < 0.35)
    sides = np.linalg.norm(base[1] - base[0]), np.linalg.norm(base[2] - base[1])
    rise_m = float(rng.uniform(0.3, 0.5) * sides[1 - ridge_along]) if has_gable else 0.0
    rise_m = min(rise_m, 4.0)
    if has_gable:
        for origin, across, down, width, length, normal in roof_planes(base, height_m, rise_m, ridge_along):
            ends = np.array([origin, origin + width * across])
            if not canvas.shows(camera, np.concatenate([ends, ends[::-1] + length * down])):
                continue
            tiles = roof_tiles(rng, style.roof, width, length, 6.0) * light.shade(normal)
            outline = [(-0.25, 0), (width + 0.25, 0), (width + 0.25, length), (-0.25, length)]
            canvas.paint_plane(camera, origin, across, down, outline, tiles, BUILDING)
    for face in visible_faces(base, height_m):
        is_gable = has_gable and face.index % 2 == 1 - ridge_along
        _paint_side(canvas, camera, light, rng, face, height_m, rise_m if is_gable else 0.0, style)
        if face.index == 0 and style.has_shop and height_m > 2 * style.floor_m:
            _paint_shop_signs(canvas, camera, light, rng, face, height_m)


def _paint_side(canvas, camera, light, rng, face: Face, height_m: float, peak_m: float, style: FacadeStyle) -> None:
    if not canvas.shows(camera, face.corners(height_m + peak_m, peak_m)):
        return
    texels_per_m = face.texels_per_m(camera, height_m)
    texture = facade(rng, style, face.width_m, height_m, texels_per_m, light, face.index == 0)
    texture *= light.shade(face.normal)
    width = face.width_m
    outline = [(0, 0), (width, 0), (width, height_m), (0, height_m)]
    if peak_m:
        outline.insert(1, (width / 2, -peak_m))
        attic = np.repeat(texture[:1], max(int(peak_m * texels_per_m), 1), axis=0)
        texture = np.concatenate([attic * 0.9, texture])
    canvas.paint_plane(camera, face.origin, face.across, DOWN, outline, texture, BUILDING)


_SIGN_COLORS = [
    (0.78, 0.12, 0.14),
    (0.10, 0.30, 0.66),
    (0.95, 0.80, 0.16),
    (0.08, 0.46, 0.26),
    (0.94, 0.48, 0.10),
]


def _paint_shop_signs(canvas, camera, light, rng, face: Face, height_m: float) -> None:
    """Hang one or two lettered boards above the ground floor, slightly in front of the wall."""
    left = rng.uniform(0.4, 1.5)
    for _ in range(int(rng.integers(1, 3))):
        width, height = rng.uniform(2.4, 4.6), rng.uniform(0.75, 1.05)
        if left + width > face.width_m - 0.3:
            return
        texture = _lettering(rng, width / height) * np.maximum(light.shade(face.normal), 0.75)
        origin = face.origin + face.normal * 0.12 + face.across * left - UP * (height_m - 2.75 - height)
        outline = [(0, 0), (width, 0), (width, height), (0, height)]
        canvas.paint_plane(camera, origin, face.across, DOWN, outline, texture.astype(np.float32), SIGN)
        left += width + rng.uniform(0.4, 2.0)


def _lettering(rng, aspect: float) -> np.ndarray:
    """Draw strokes that look like letters on a colored board (h, w, 3)."""
    height = 20
    width = max(int(height * aspect), height)
    board = np.empty((height, width, 3), np.float32)
    board[:] = vary(_SIGN_COLORS[int(rng.integers(len(_SIGN_COLORS)))], rng, 0.1)
    ink = np.array((0.96, 0.95, 0.9) if board.mean() < 0.55 else (0.1, 0.1, 0.12), np.float32)
    board[[0, -1]] = board[:, [0, -1]] = ink
    x = 5
    while x < width - 8:
        letter = int(rng.integers(4, 8))
        board[5:15, x : x + 2] = ink
        row = int(rng.choice([5, 9, 13]))
        board[row : row + 2, x : x + letter] = ink
        if rng.random() < 0.5:
            board[5:15, x + letter - 2 : x + letter] = ink
        x += letter + 3
    return board
