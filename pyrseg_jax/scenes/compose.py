"""Render a whole scene from its number."""

import cv2
import numpy as np

from pyrseg_jax.scenes.camera import Camera
from pyrseg_jax.scenes.canvas import Canvas
from pyrseg_jax.scenes.ground import Ground, cast_shadows, paint_ground
from pyrseg_jax.scenes.layout import Layout, draw_layout
from pyrseg_jax.scenes.lens import expose, halve_labels
from pyrseg_jax.scenes.light import draw_light
from pyrseg_jax.scenes.populate import populate
from pyrseg_jax.scenes.sky import paint_sky, paint_skyline
from pyrseg_jax.scenes.stage import Stage
from pyrseg_jax.scenes.water import reflect

# Raise this with every change of the pictures. It is a part of the seed, and `builders.VERSION` must change with it.
PAINTING_VERSION = 1
_SPLITS = {"training": 0, "validation": 1}


def paint_scene(split: str, index: int, size_px: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Render one image and its label map.

    Args:
      split: "training" or "validation"; their scenes are drawn from separate streams.
      index: the number of the scene in its split.
      size_px: side of both results, a multiple of 2.

    Returns:
      image (size_px, size_px, 3), uint8 RGB, and labels (size_px, size_px), uint8: 0 void, 1..12 the classes.
      Both depend on the arguments alone.
    """
    if split not in _SPLITS:
        raise ValueError(f"split is {split!r}; the scenes have the splits {' and '.join(_SPLITS)}.")
    seeds = np.random.SeedSequence((PAINTING_VERSION, _SPLITS[split], index)).spawn(4)
    plan_rng, light_rng, paint_rng, lens_rng = (np.random.default_rng(seed) for seed in seeds)
    layout = draw_layout(plan_rng)
    camera = _draw_camera(plan_rng, layout, 2 * size_px)
    light = draw_light(light_rng)
    stage = Stage(camera, layout, light, plan_rng)
    populate(stage)

    canvas = Canvas(2 * size_px)
    paint_sky(canvas, camera, light, paint_rng)
    paint_skyline(canvas, camera, light, paint_rng, layout.is_urban)
    ground = Ground(camera, layout.street)
    footprints = [(placed.footprint, placed.height_m) for placed in stage.placed]
    shadows = cast_shadows(camera, ground, footprints, light)
    paint_ground(canvas, layout.street, ground, shadows, light, paint_rng)
    canvas.nearness[2 * ground.first_row :] = 0.0
    # Nearest first, because hidden objects need not be drawn at all. The depth test gives the same picture in any order.
    for placed in sorted(stage.placed, key=lambda placed: placed.distance_m):
        placed.paint(canvas)
    image = cv2.resize(canvas.image, (size_px, size_px), interpolation=cv2.INTER_AREA)
    reflect(image, canvas, camera, ground, paint_rng)
    return expose(image, canvas, ground, light, lens_rng), halve_labels(canvas.labels, lens_rng)


def _draw_camera(rng: np.random.Generator, layout: Layout, size_px: int) -> Camera:
    """Draw a camera at eye height, sometimes at a window; the horizon lies 34 to 58 % down the picture."""
    is_high = rng.random() < 0.18 or (layout.street.kind == "canal" and abs(layout.street.camera_s) < 3)
    return Camera(
        size_px=size_px,
        focal_px=float(rng.uniform(0.85, 1.25)) * size_px,
        horizon_px=float(rng.uniform(0.34, 0.58)) * size_px,
        height_m=float(rng.uniform(2.8, 4.6) if is_high else rng.uniform(1.5, 2.3)),
    )
