"""Paint the sky, and distant hills and buildings in front of it."""

import cv2
import numpy as np

from pyrseg_jax.scenes.camera import Camera
from pyrseg_jax.scenes.canvas import Canvas, Patch
from pyrseg_jax.scenes.classes import BUILDING, SKY, TREE
from pyrseg_jax.scenes.light import Light
from pyrseg_jax.scenes.textures import noise_patch, noise_table, sample_noise, vary


def paint_sky(canvas: Canvas, camera: Camera, light: Light, rng) -> None:
    """Fill the canvas with sky: a gradient, the glow of the sun, and clouds that shrink toward the horizon."""
    camera = camera.halved()  # the sky has no fine detail
    size = camera.size_px
    num_rows = min(max(int(camera.horizon_px) + 2, 1), size)
    rows = np.arange(num_rows, dtype=np.float32)[:, None] + 0.5
    columns = np.arange(size, dtype=np.float32)[None] + 0.5
    elevation = np.clip((camera.horizon_px - rows) / camera.focal_px, 0.0, None)
    upper = (1 - np.exp(-elevation * 3.2))[..., None]
    sky = light.horizon.astype(np.float32) + upper * (light.zenith - light.horizon).astype(np.float32)
    sky = np.repeat(sky, size, axis=1)
    sun = light.to_sun
    if sun[2] > 0.1 and light.name in ("sunset", "morning", "clear"):
        center = camera.project(sun[None] * 1000 + [0, camera.height_m, 0])[0]
        distance = ((columns - center[0]) ** 2 + (rows - center[1]) ** 2) / camera.focal_px**2
        glow = np.exp(-distance * 9.0) * 0.35 + np.exp(-distance * 300.0) * 0.7
        sky += glow[..., None].astype(np.float32) * (light.sun + 0.3).astype(np.float32)
    # Clouds form a flat layer. A pixel shows the pattern where its ray meets the layer.
    layer = 46.0 / (elevation + 0.09)
    shift = rng.uniform(0, 512, 2)
    pattern = sample_noise(
        noise_table(2, 8, 0.56),
        (columns - size / 2) / camera.focal_px * layer * 0.7 + shift[0],
        layer + shift[1],
    )
    cover = np.clip((pattern + light.cloudiness - 0.75) * 0.8, 0.0, 1.0)[..., None]
    depth = np.clip(pattern + light.cloudiness - 1.0, 0.0, 2.5)[..., None]
    cloud = light.cloud.astype(np.float32) * (1.02 - 0.09 * depth)
    sky += cover * np.float32(0.9) * (cloud - sky)
    canvas.image[: 2 * num_rows] = cv2.resize(sky, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    canvas.labels[:] = SKY


def _hills(canvas, camera, light, rng, distance_m: float, height_m: float) -> None:
    """Paint a wooded ridge over the whole width."""
    size = canvas.size_px
    num = 72
    xs = np.linspace(-4, size + 4, num)
    phase = rng.uniform(0, 512, 2)
    profile = sample_noise(noise_table(2, 8, 0.6), (np.arange(num) * 4.0 + phase[0])[None], phase[1:][None])[0]
    heights = np.maximum(height_m * (0.6 + 0.3 * profile.astype(np.float64)), 0.1 * height_m)
    base = camera.horizon_px + camera.focal_px * camera.height_m / distance_m + 1
    tops = base - camera.focal_px * heights / distance_m
    patch = Patch(size, 0.0, tops.min() - 1, float(size), base + 1)
    if patch.is_empty:
        return
    green = vary([(0.20, 0.34, 0.17), (0.30, 0.38, 0.18), (0.16, 0.28, 0.20)][int(rng.integers(3))], rng)
    outline = np.concatenate([np.stack([xs, tops], 1), [(size + 4, base), (-4, base)]])
    patch.polygon(outline, green * light.shade((0, 0.6, -0.8)), TREE)
    patch.shade(1 + 0.16 * noise_patch(rng, *patch.labels.shape, 9.0, (5, 8)))
    canvas.paste(patch, 1.0 / distance_m)


def _city(canvas, camera, light, rng, distance_m: float) -> None:
    """Paint a row of far blocks over the whole width."""
    size = canvas.size_px
    base = camera.horizon_px + camera.focal_px * camera.height_m / distance_m + 1
    scale = camera.focal_px / distance_m
    patch = Patch(size, 0.0, base - 48 * scale, float(size), base + 1)
    if patch.is_empty:
        return
    x = -rng.uniform(0, 10) * scale
    while x < size:
        width = rng.uniform(9, 26) * scale
        height = rng.uniform(8, 20) * scale * (1.9 if rng.random() < 0.15 else 1.0)
        color = vary([(0.62, 0.55, 0.48), (0.55, 0.57, 0.60), (0.58, 0.42, 0.36)][int(rng.integers(3))], rng, 0.12)
        color = color * light.shade((0, 0.0, -1.0))
        patch.box(x, base - height, x + width, base + 1, color, BUILDING)
        if rng.random() < 0.4:
            peak = [
                (x, base - height),
                (x + width, base - height),
                (x + width / 2, base - height - width * 0.3),
            ]
            patch.polygon(peak, color * (0.75, 0.62, 0.6), BUILDING)
        step = 3.4 * scale
        for y in np.arange(base - height + 0.4 * step, base - step, step):
            for left in np.arange(x + 0.3 * step, x + width - 0.6 * step, step):
                patch.box(left, y, left + 0.45 * step, y + 0.5 * step, color * 0.62, BUILDING)
        x += width
    canvas.paste(patch, 1.0 / distance_m)


def paint_skyline(canvas: Canvas, camera: Camera, light: Light, rng, is_urban: bool) -> None:
    """Paint the horizon: distant ridges, and blocks of houses in towns or trees elsewhere."""
    if rng.random() < 0.75 and light.haze_m > 220:  # otherwise the haze would hide them
        _hills(canvas, camera, light, rng, 400.0, rng.uniform(18, 55))
    if is_urban:
        _city(canvas, camera, light, rng, rng.uniform(115, 160))
    if not is_urban or rng.random() < 0.3:
        _hills(canvas, camera, light, rng, 110.0, rng.uniform(5, 11))
