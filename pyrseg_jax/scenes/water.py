"""Mirror the finished scene in its water."""

import cv2
import numpy as np

from pyrseg_jax.scenes.camera import Camera
from pyrseg_jax.scenes.canvas import Canvas
from pyrseg_jax.scenes.classes import WATER
from pyrseg_jax.scenes.ground import Ground


def reflect(image: np.ndarray, canvas: Canvas, camera: Camera, ground: Ground, rng) -> None:
    """Add reflections and ripples to the water in `image` (h, w, 3), the canvas averaged to half its size.

    What stands on the far shore appears upside down below its foot, so every column is mirrored about the top
    of its stretch of water. More is reflected at a flat angle, that is, far away.
    """
    first = ground.first_row
    size = len(image)
    share_of_water = cv2.resize(
        (canvas.labels[2 * first :] == WATER).astype(np.float32),
        (size, size - first),
        interpolation=cv2.INTER_AREA,
    )
    water = share_of_water > 0.4
    if not water.any():
        return
    rows = np.arange(first, size, dtype=np.float32)[:, None]
    # For each pixel, the last row above it in the same column that is not water.
    shore = np.maximum.accumulate(np.where(water, np.float32(first - 1), rows), axis=0)
    strength = float(rng.uniform(0.3, 1.0))
    waves = ground.noise(5, 8, 9.0, 2.2) + 0.6 * ground.noise(6, 8, 22.0, 2.2)
    # Waves tilt the mirror. They shift the reflection mostly up and down, and more so near the camera.
    push = strength * waves * (1.0 + 4.5 / np.sqrt(1.0 + ground.along_m * 40.0))
    source_y = 2 * shore - rows + 2 * push
    columns = np.arange(size, dtype=np.float32)[None] + 0.5 * push
    mirrored = cv2.remap(
        image, columns.astype(np.float32), np.maximum(source_y, 0).astype(np.float32),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    slope = camera.height_m / np.hypot(ground.z, camera.height_m)
    share = (0.28 + 0.55 * (1 - slope) ** 4)[..., None]
    body = image[first:]
    mixed = body + share * (0.93 * mirrored - body)
    mixed *= (1 + 0.10 * strength * waves)[..., None]
    image[first:] = body + share_of_water[..., None] * (mixed - body)
