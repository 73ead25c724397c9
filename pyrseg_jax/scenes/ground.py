"""Paint the ground: the ray of each pixel meets the plane Y = 0, and the street tells which surface is there."""

import cv2
import numpy as np

from pyrseg_jax.scenes.camera import Camera, clip_near
from pyrseg_jax.scenes.canvas import Canvas, fill_polygon
from pyrseg_jax.scenes.classes import GRASS, PAVEMENT, ROAD, WATER
from pyrseg_jax.scenes.light import Light
from pyrseg_jax.scenes.street import Street
from pyrseg_jax.scenes.textures import noise_table, sample_noise, vary

_COLORS = {
    ROAD: [(0.33, 0.33, 0.35), (0.40, 0.40, 0.41), (0.27, 0.28, 0.30), (0.42, 0.39, 0.37)],
    PAVEMENT: [
        (0.62, 0.60, 0.57),
        (0.70, 0.64, 0.54),
        (0.62, 0.44, 0.38),
        (0.55, 0.55, 0.57),
        (0.74, 0.70, 0.64),
    ],
    GRASS: [(0.33, 0.50, 0.17), (0.42, 0.54, 0.20), (0.26, 0.44, 0.18), (0.55, 0.55, 0.27)],
    WATER: [(0.17, 0.30, 0.36), (0.22, 0.34, 0.32), (0.14, 0.24, 0.36), (0.30, 0.34, 0.28)],
}


class Ground:
    """The rays that meet the ground, on a grid of half the canvas, starting at row `first_row` of that grid.

    The four canvas pixels of a grid point share a color; only the labels have the full resolution.

    Attributes:
      s, t: street coordinates in meters (h, w); z: depth (h, 1).
      labels: classes on the full canvas (2h, 2w).
    """

    def __init__(self, camera_full: Camera, street: Street):
        camera = camera_full.halved()
        self.first_row, x, self.z = camera.ground_grid()
        self.s, self.t = street.from_camera(x, self.z)
        # Meters per pixel: across the view, and along it, where pixels stretch with the distance squared.
        self.across_m = self.z / np.float32(camera.focal_px)
        self.along_m = self.z**2 / np.float32(camera.focal_px * camera.height_m)
        self.labels = _label_ground(street, *_full_rays(camera_full, street, 2 * self.first_row))

    def noise(self, first_octave: int, last_octave: int, texels_per_m: float, stretch: float = 1.0) -> np.ndarray:
        """Sample noise (h, w) on the ground, faded out where its texels are finer than the pixels."""
        table = noise_table(first_octave, last_octave)
        fade = 1 / (1 + self.along_m * (texels_per_m * 0.2))
        return fade * sample_noise(table, self.s * texels_per_m, self.t * (texels_per_m * stretch))

    def coverage(self, distance_m: np.ndarray, half_width_m: float, is_along: bool) -> np.ndarray:
        """Return the share (0..1) of each pixel that a line covers whose middle is `distance_m` away."""
        footprint = self.across_m if is_along else np.maximum(self.along_m, self.across_m)
        inside = np.clip((half_width_m - np.abs(distance_m)) / footprint + 0.5, 0.0, 1.0)
        return inside * np.minimum(2 * half_width_m / footprint, 1.0)


def _full_rays(camera: Camera, street: Street, first_row: int) -> tuple[np.ndarray, np.ndarray]:
    row, x, z = camera.ground_grid()
    return street.from_camera(x[first_row - row :], z[first_row - row :])


def _label_ground(street: Street, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the class of every ground point (s, t)."""
    ends = np.array([end for end, _ in street.bands[:-1]])
    classes = np.array([label for _, label in street.bands], np.uint8)
    # Shores and lawns have no straight edges: theirs wander by a few decimeters.
    table = noise_table(4, 7)
    labels = np.full(s.shape, classes[0], np.uint8)
    for end, label in zip(ends, classes[1:], strict=True):
        labels[s >= np.float32(end)] = label
    for index, end in enumerate(ends):
        if {int(classes[index]), int(classes[index + 1])} == {int(GRASS), int(WATER)}:
            wander = 0.35 * sample_noise(table, t * np.float32(3.0), np.full((1, 1), 7.0, np.float32))
            near_edge = np.abs(s - np.float32(end)) < 1.2
            labels[near_edge] = np.where(s + wander < end, classes[index], classes[index + 1])[near_edge]
    for pond_s, pond_t, half_s, half_t in street.ponds:
        rough = 1 + 0.1 * sample_noise(table, s * np.float32(2.0), t * np.float32(2.0))
        inside = ((s - pond_s) / half_s) ** 2 + ((t - pond_t) / half_t) ** 2 < rough
        labels[inside & (labels == GRASS)] = WATER
    return labels


def cast_shadows(camera: Camera, ground: Ground, footprints, light: Light) -> np.ndarray:
    """Return the factor (h, w, 3) of all cast shadows.

    Args:
      footprints: (corners (n, 2) in X and Z, height in meters) of each object on the ground.
    """
    camera = camera.halved()
    mask = np.zeros((camera.size_px, camera.size_px), np.uint8)
    contact = np.zeros_like(mask)
    for corners, height in footprints:
        center = corners.mean(axis=0)
        _fill_ground(contact, camera, center + (corners - center) * 1.12)
        if light.name not in ("overcast", "dusk"):
            moved = corners + light.shadow_step * height
            hull = cv2.convexHull(np.concatenate([corners, moved]).astype(np.float32))[:, 0]
            _fill_ground(mask, camera, hull.astype(np.float64))
    rows = slice(ground.first_row, None)
    soft = cv2.GaussianBlur(mask, (0, 0), 0.7)[rows, :, None].astype(np.float32) / 255
    below = cv2.GaussianBlur(contact, (0, 0), 1.5)[rows, :, None].astype(np.float32) / 255
    return (1 - soft * (1 - light.shadow)) * (1 - 0.45 * below)


def _fill_ground(mask: np.ndarray, camera: Camera, corners: np.ndarray) -> None:
    points = np.zeros((len(corners), 3))
    points[:, [0, 2]] = corners
    if camera.is_beside(points):
        return
    points = clip_near(points)
    if len(points) >= 3:
        fill_polygon(mask, camera.project(points), 255)


def paint_ground(canvas: Canvas, street: Street, ground: Ground, shadows, light: Light, rng) -> None:
    """Paint everything below the horizon."""
    target = canvas.image[2 * ground.first_row :]
    lit = light.shade(np.array([0.0, 1.0, 0.0])) * shadows
    for label, painter in _PAINTERS.items():
        mask = ground.labels == label
        choices = _COLORS[label]
        base = vary(choices[int(rng.integers(len(choices)))], rng, 0.08).astype(np.float32)
        surface_rng = np.random.default_rng(rng.integers(2**32))
        if mask.any():
            surface = (painter(ground, street, base, surface_rng) * lit).astype(np.float32)
            doubled = cv2.resize(surface, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
            cv2.copyTo(doubled, mask.view(np.uint8), target)
    canvas.labels[2 * ground.first_row :] = ground.labels


def _modulo(values: np.ndarray, period: float) -> np.ndarray:
    """Return the same as np.mod, in a fraction of its time."""
    return values - period * np.floor(values * (1 / period))


def _road(ground: Ground, street: Street, base, rng) -> np.ndarray:
    """Paint asphalt with worn tracks, patches, and markings on every road band."""
    tone = 1 + 0.10 * ground.noise(7, 8, 45.0) + 0.06 * ground.noise(3, 7, 9.0, 0.4)
    paint = np.zeros_like(ground.s)
    has_edge_lines, dash_m = rng.random() < 0.5, float(rng.choice([3.0, 4.0, 6.0]))
    crossing_t = rng.uniform(6, 22) if rng.random() < 0.35 else None
    for low, high in street.band(ROAD):
        middle, half = (low + high) / 2, (high - low) / 2
        tracks = np.abs(np.abs(ground.s - middle) - half / 2)
        tone = tone - 0.05 * np.exp(-(((tracks - 0.75) / 0.35) ** 2))
        is_dash = _modulo(ground.t, 2 * dash_m) < dash_m
        lines = ground.coverage(ground.s - middle, 0.09, True) * is_dash
        if has_edge_lines:
            lines = np.maximum(lines, ground.coverage(np.abs(ground.s - middle) - half + 0.3, 0.07, True))
        if crossing_t is not None:
            is_zebra = np.abs(ground.t - crossing_t) < 1.6
            bars = ground.coverage(_modulo(ground.s - low, 1.1) - 0.55, 0.28, True)
            lines = np.where(is_zebra, bars, lines)
        paint = np.maximum(paint, lines * (np.abs(ground.s - middle) < half))
    wear = np.clip(0.85 + 0.2 * ground.noise(6, 8, 20.0), 0, 1)
    white = np.array([0.86, 0.86, 0.83], np.float32)
    surface = base * tone[..., None]
    return surface + (paint * wear)[..., None] * (white - surface)


def _pavement(ground: Ground, street: Street, base, rng) -> np.ndarray:
    """Paint slabs with joints, and a light curb where a road begins."""
    slab_m = float(rng.choice([0.5, 0.8, 1.2]))
    s, t = ground.s / slab_m, ground.t / (slab_m * float(rng.choice([1.0, 1.5])))
    table = noise_table(8, 8)
    slab = table[np.floor(s).astype(int) % 512, np.floor(t).astype(int) % 512]
    fade = 1 / (1 + (ground.along_m / slab_m * 2) ** 2)
    joints = np.maximum(
        ground.coverage((s - np.floor(s) - 0.5) * slab_m, 0.025, True),
        ground.coverage((t - np.floor(t) - 0.5) * slab_m, 0.025, False),
    )
    tone = 1 + 0.06 * fade * slab + 0.06 * ground.noise(6, 8, 40.0) + 0.05 * ground.noise(3, 6, 8.0)
    surface = base * (tone * (1 - 0.3 * joints))[..., None]
    for low, high in street.band(ROAD):
        for edge in (low, high):
            curb = ground.coverage(ground.s - edge, 0.18, True)[..., None]
            surface = surface + 0.7 * curb * (np.array([0.74, 0.73, 0.71], np.float32) - surface)
    return surface.astype(np.float32)


def _grass(ground: Ground, street: Street, base, rng) -> np.ndarray:
    """Paint a lawn: nearby blades, patches, a drier tint in places, and some flowers."""
    blades = ground.noise(7, 8, 60.0, 0.7) + 0.5 * ground.noise(6, 8, 24.0)
    patches = ground.noise(3, 7, 7.0)
    dry = np.clip(0.3 * ground.noise(3, 5, 3.5) + 0.1, 0, 0.5)[..., None]
    surface = base * (1 + 0.2 * blades + 0.10 * patches)[..., None]
    surface = surface + dry * (np.array([0.56, 0.54, 0.27], np.float32) - surface)
    if rng.random() < 0.5:
        flowers = (sample_noise(noise_table(8, 8), ground.s * 22.0, ground.t * 22.0) > 2.6) & (ground.along_m < 0.1)
        petals = np.array([(0.95, 0.93, 0.9), (0.93, 0.82, 0.3)][int(rng.integers(2))], np.float32)
        surface = np.where(flowers[..., None], petals, surface)
    return surface.astype(np.float32)


def _water(ground: Ground, street: Street, base, rng) -> np.ndarray:
    """Paint the water itself. Reflections are added when the scene is complete."""
    return (base * (1 + 0.05 * ground.noise(3, 6, 4.0, 3.0))[..., None]).astype(np.float32)


_PAINTERS = {ROAD: _road, PAVEMENT: _pavement, GRASS: _grass, WATER: _water}
