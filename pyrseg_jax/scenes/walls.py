"""Paint free-standing walls and board fences."""

import numpy as np

from pyrseg_jax.scenes.camera import Camera
from pyrseg_jax.scenes.canvas import Canvas
from pyrseg_jax.scenes.classes import WALL
from pyrseg_jax.scenes.light import Light
from pyrseg_jax.scenes.solids import DOWN, UP, visible_faces
from pyrseg_jax.scenes.textures import MATERIALS, vary

# material, color, range of heights in meters
WALL_KINDS = [
    ("stones", (0.62, 0.58, 0.52), (1.3, 2.6)),
    ("stones", (0.70, 0.62, 0.50), (1.3, 2.4)),
    ("planks", (0.55, 0.40, 0.26), (1.3, 2.4)),
    ("planks", (0.62, 0.48, 0.34), (1.3, 2.2)),
]


def paint_wall(canvas: Canvas, camera: Camera, light: Light, rng, base, height_m: float, kind: int) -> None:
    """Paint a stretch of wall on the base (4, 3) with a coping; stretches of one wall share `kind`."""
    if camera.is_beside(base):
        return
    material, color, _ = WALL_KINDS[kind]
    coping = np.minimum(np.asarray(color, np.float32) * 0.6 + 0.32, 1.0)
    for face in visible_faces(base, height_m):
        if not canvas.shows(camera, face.corners(height_m)):
            continue
        texels_per_m = face.texels_per_m(camera, height_m, 30.0)
        shape = max(int(height_m * texels_per_m), 3), max(int(face.width_m * texels_per_m), 3)
        texture = MATERIALS[material](rng, vary(color, rng, 0.03), *shape, texels_per_m).astype(np.float32)
        if material != "planks":
            texture[: max(int(0.12 * texels_per_m), 1)] = coping
        texture[-max(int(0.15 * texels_per_m), 1) :] *= 0.75
        texture *= light.shade(face.normal)
        outline = [(0, 0), (face.width_m, 0), (face.width_m, height_m), (0, height_m)]
        canvas.paint_plane(camera, face.origin, face.across, DOWN, outline, texture, WALL)
    if height_m < camera.height_m:
        _paint_top(canvas, camera, light, base, height_m, coping)


def _paint_top(canvas, camera, light, base, height_m: float, color) -> None:
    long, short = base[1] - base[0], base[3] - base[0]
    lengths = np.linalg.norm(long), np.linalg.norm(short)
    texture = np.full((4, 4, 3), color * light.shade(UP), np.float32)
    outline = [(0, 0), (lengths[0], 0), (lengths[0], lengths[1]), (0, lengths[1])]
    canvas.paint_plane(camera, base[0] + height_m * UP, long / lengths[0], short / lengths[1], outline, texture, WALL)
