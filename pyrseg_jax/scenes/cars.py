"""Paint cars as solids: a side profile extruded to the car's width, seen from any direction."""

import numpy as np

from pyrseg_jax.scenes.camera import NEAR_M, Camera
from pyrseg_jax.scenes.canvas import Canvas, Patch, ellipse_corners
from pyrseg_jax.scenes.classes import CAR
from pyrseg_jax.scenes.light import Light
from pyrseg_jax.scenes.textures import vary

# (meters forward of the middle, meters above the ground, material up to the next corner), from the bottom at the rear over the
# roof to the bottom at the front.
_PROFILES = {
    "hatchback": [(-1.95, 0.28, "bumper"), (-2.0, 0.62, "rear"), (-1.9, 0.98, "glass"), (-1.45, 1.46, "body"),
                  (0.15, 1.48, "glass"), (0.95, 1.0, "body"), (1.8, 0.86, "front"), (1.98, 0.58, "bumper"),
                  (1.95, 0.28, "end")],
    "saloon": [(-2.2, 0.28, "bumper"), (-2.25, 0.62, "rear"), (-2.15, 0.95, "body"), (-1.55, 1.0, "glass"),
               (-0.95, 1.42, "body"), (0.3, 1.43, "glass"), (1.1, 0.97, "body"), (2.05, 0.82, "front"),
               (2.22, 0.56, "bumper"), (2.2, 0.28, "end")],
    "estate": [(-2.2, 0.32, "bumper"), (-2.25, 0.7, "rear"), (-2.15, 1.08, "glass"), (-1.85, 1.64, "body"),
               (0.35, 1.66, "glass"), (1.1, 1.12, "body"), (2.0, 0.98, "front"), (2.15, 0.62, "bumper"),
               (2.12, 0.32, "end")],
    "van": [(-2.35, 0.34, "bumper"), (-2.4, 0.8, "rear"), (-2.4, 1.3, "glass"), (-2.3, 2.1, "body"),
            (1.1, 2.12, "glass"), (1.85, 1.22, "body"), (2.3, 1.02, "front"), (2.42, 0.66, "bumper"),
            (2.4, 0.34, "end")],
}  # fmt: skip
_PAINTS = [(0.86, 0.86, 0.86), (0.16, 0.17, 0.19), (0.55, 0.57, 0.60), (0.66, 0.10, 0.12), (0.13, 0.25, 0.52),
           (0.74, 0.76, 0.78), (0.12, 0.32, 0.26), (0.88, 0.66, 0.14), (0.40, 0.55, 0.70)]  # fmt: skip
_HALF_WIDTH_M = 0.9


class _Body:
    """Map car coordinates (forward, sideways, up) in meters to the world and to pixels."""

    def __init__(self, camera: Camera, middle, forward):
        self.camera, self.middle, self.forward = camera, np.asarray(middle), np.asarray(forward)
        self.side = np.array([forward[2], 0.0, -forward[0]])

    def world(self, points) -> np.ndarray:
        points = np.asarray(points, np.float64)
        up = np.array([0.0, 1.0, 0.0])
        return self.middle + points[:, :1] * self.forward + points[:, 1:2] * self.side + points[:, 2:] * up

    def pixels(self, points) -> np.ndarray:
        return self.camera.project(self.world(points))

    def half_width(self, height: float, waist: float) -> float:
        """Return the distance of the side from the middle. Above the waist, the cabin leans inward."""
        return _HALF_WIDTH_M - 0.22 * max(height - waist, 0.0)


def car_corners(middle, forward) -> np.ndarray:
    """Return the corners (4, 2) in X and Z of the ground below a car."""
    side = np.array([forward[2], -forward[0]])
    ahead = np.array([forward[0], forward[2]])
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
    return np.array([middle[0], middle[2]]) + signs[:, :1] * 2.0 * ahead + signs[:, 1:] * 0.85 * side


def paint_car(canvas: Canvas, camera: Camera, light: Light, rng, middle, forward) -> None:
    """Paint a car whose middle stands at `middle` (3,) and that heads along the unit vector `forward`."""
    body = _Body(camera, middle, forward)
    name = str(rng.choice(list(_PROFILES), p=[0.36, 0.3, 0.22, 0.12]))
    profile = _PROFILES[name]
    paint = vary(_PAINTS[int(rng.integers(len(_PAINTS)))], rng, 0.1)
    bounds = [(x, y, z) for x in (-2.5, 2.5) for y in (-1.0, 1.0) for z in (0.0, 2.2)]
    world = body.world(bounds)
    if world[:, 2].min() < NEAR_M + 0.8:
        return
    corners = camera.project(world)
    patch = Patch(canvas.size_px, *(corners.min(axis=0) - 2), *(corners.max(axis=0) + 2))
    if patch.is_empty:
        return
    near_side = 1.0 if np.dot(body.side, middle) < 0 else -1.0
    waist = profile[2][1]
    for axle in (-0.62, 0.62):
        for side in (-near_side, near_side):
            _wheel(patch, body, axle * 2.0, side, False)
    _strips(patch, body, light, profile, paint, waist)
    _side(patch, body, light, profile, paint, waist, near_side)
    canvas.paste(patch, 1.0 / max(middle[2], NEAR_M))


def _wheel(patch: Patch, body: _Body, axle: float, side: float, has_rim: bool) -> None:
    circle = ellipse_corners(18)

    def ring(radius, sideways):
        points = np.stack([axle + radius * circle[:, 0], np.full(18, sideways), 0.32 + radius * circle[:, 1]], 1)
        return body.pixels(points)

    dark = (0.07, 0.07, 0.08)
    if not has_rim:
        patch.polygon(ring(0.32, side * (_HALF_WIDTH_M - 0.22)), dark, CAR)
        inner, outer = side * (_HALF_WIDTH_M - 0.24), side * (_HALF_WIDTH_M - 0.02)
        for end in (axle - 0.3, axle + 0.3):
            tread = [(end, inner, 0.3), (end, outer, 0.3), (axle, outer, 0.0), (axle, inner, 0.0)]
            patch.polygon(body.pixels(tread), dark, CAR)
        return
    patch.polygon(ring(0.34, side * _HALF_WIDTH_M), dark, CAR)
    patch.polygon(ring(0.20, side * (_HALF_WIDTH_M + 0.01)), (0.50, 0.51, 0.53), CAR)
    patch.polygon(ring(0.07, side * (_HALF_WIDTH_M + 0.01)), (0.24, 0.24, 0.26), CAR)


def _glass_color(light: Light, normal) -> np.ndarray:
    """Return the color of a window: dark, and with more sky in it the more the pane leans back."""
    lean = max(float(normal[1]), 0.0)
    return np.array((0.10, 0.12, 0.14)) + (0.12 + 0.4 * lean) * light.horizon * 0.8


def _strips(patch, body: _Body, light, profile, paint, waist) -> None:
    """Paint bumpers, panes, roof and hood, farthest first.

    Each is a stretch of the profile drawn out across the car's width.
    """
    strips = []
    for (x1, z1, kind), (x2, z2, _) in zip(profile[:-1], profile[1:], strict=True):
        w1, w2 = body.half_width(z1, waist), body.half_width(z2, waist)
        corners = np.array([(x1, -w1, z1), (x1, w1, z1), (x2, w2, z2), (x2, -w2, z2)])
        along = np.array([x2 - x1, z2 - z1]) / np.hypot(x2 - x1, z2 - z1)
        normal = -along[1] * body.forward + along[0] * np.array([0.0, 1.0, 0.0])
        world = body.world(corners)
        eye = np.array([0.0, body.camera.height_m, 0.0])
        if np.dot(normal, eye - world.mean(axis=0)) > 0:
            strips.append((world.mean(axis=0)[2], kind, corners, normal))
    for _, kind, corners, normal in sorted(strips, key=lambda strip: -strip[0]):
        shade = light.shade(normal)
        color = {"glass": _glass_color(light, normal), "bumper": paint * 0.62 * shade}.get(kind, paint * shade)
        patch.polygon(body.pixels(corners), color, CAR)
        if kind == "glass":
            middle = corners.mean(axis=0)
            patch.polygon(body.pixels(middle + (corners - middle) * (1.0, 0.84, 0.86)), color * 1.12, CAR)
        elif kind in ("front", "rear"):
            _lamps(patch, body, kind, corners, shade)


def _lamps(patch, body: _Body, kind: str, corners, shade) -> None:
    """Paint two lamps, and a plate or a grille between them."""
    low, high = corners[0], corners[3]
    if low[2] > high[2]:
        low, high = high, low
    color = np.array((0.97, 0.95, 0.86)) if kind == "front" else np.array((0.80, 0.08, 0.07))

    def part(left, right, bottom, top):
        points = [(left, bottom), (right, bottom), (right, top), (left, top)]
        return body.pixels([(*(low + (high - low) * v)[[0]], u, (low + (high - low) * v)[2]) for u, v in points])

    patch.polygon(part(-0.4, 0.4, -0.2, 0.35), np.array((0.16, 0.16, 0.17)) * shade, CAR)
    patch.polygon(part(-0.26, 0.26, -0.1, 0.25), np.array((0.88, 0.87, 0.78)) * shade, CAR)
    for side in (-1, 1):
        patch.polygon(part(side * 0.84, side * 0.52, 0.2, 0.85), color * np.maximum(shade, 0.8), CAR)


def _side(patch, body: _Body, light, profile, paint, waist, near_side) -> None:
    """Paint the flank that faces the camera with its windows, door joint, sill and wheels."""
    normal = body.side * near_side
    shade = light.shade(normal)

    def flank(points):
        return body.pixels([(x, near_side * (body.half_width(z, waist) + 0.005), z) for x, z in points])

    outline = [(x, z) for x, z, _ in profile]
    patch.polygon(flank(outline), paint * shade * 1.02, CAR)
    patch.polygon(flank([(-1.9, 0.28), (1.9, 0.28), (1.9, 0.42), (-1.9, 0.42)]), paint * shade * 0.6, CAR)
    cabin = [x for x, z in outline if z > waist + 0.06]
    rear, front = min(cabin), max(cabin)
    top = max(z for _, z in outline) - 0.1
    glass = _glass_color(light, normal) * 1.05
    patch.polygon(flank([(rear - 0.17, waist), (-0.25, waist), (-0.25, top), (rear + 0.28, top)]), glass, CAR)
    patch.polygon(flank([(-0.15, waist), (front + 0.45, waist), (front - 0.12, top), (-0.15, top)]), glass, CAR)
    patch.polygon(flank([(-0.22, 0.42), (-0.17, 0.42), (-0.17, waist), (-0.22, waist)]), paint * shade * 0.72, CAR)
    for axle in (-1.24, 1.24):
        _wheel(patch, body, axle, near_side, True)
