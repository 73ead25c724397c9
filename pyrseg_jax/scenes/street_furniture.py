"""Paint street furniture: lamp posts, traffic lights, bollards, signs, and clutter without a class."""

import numpy as np

from pyrseg_jax.scenes.camera import Camera
from pyrseg_jax.scenes.canvas import Canvas, Patch, ellipse_corners
from pyrseg_jax.scenes.classes import POLE, SIGN, VOID
from pyrseg_jax.scenes.light import Light
from pyrseg_jax.scenes.textures import vary

_METALS = [(0.24, 0.26, 0.28), (0.45, 0.47, 0.49), (0.20, 0.27, 0.24), (0.58, 0.59, 0.60)]
_MIN_POLE_PX = 5.6  # on the canvas, which has twice the size: nearly three pixels in the picture


class _Upright:
    """A patch that stands at `foot`, for flat parts given in meters to the right of and above the foot."""

    def __init__(self, canvas: Canvas, camera: Camera, light: Light, foot, half_width_m: float, height_m: float):
        self.scale = camera.focal_px / foot[2]
        self.x, self.ground = camera.project(foot[None])[0]
        left, right = self.x - half_width_m * self.scale - 6, self.x + half_width_m * self.scale + 6
        self.patch = Patch(canvas.size_px, left, self.ground - height_m * self.scale - 4, right, self.ground + 3)
        self.lit = light.shade(np.array([0.0, 0.25, -0.97]))
        self.sun_side = float(np.sign(light.to_sun[0])) or 1.0

    def place(self, points) -> np.ndarray:
        return np.array([self.x, self.ground]) + np.asarray(points, np.float64) * (self.scale, -self.scale)

    def part(self, points, color, label: int) -> None:
        self.patch.polygon(self.place(points), np.asarray(color) * self.lit, label)

    def pole(self, height_m: float, diameter_m: float, color, label: int = POLE) -> None:
        """Draw a round post whose sunny third is brighter."""
        half = max(diameter_m * self.scale, _MIN_POLE_PX) / 2
        top = self.ground - height_m * self.scale
        color = np.asarray(color) * self.lit
        self.patch.box(self.x - half, top, self.x + half, self.ground + 0.5, color * 0.8, label)
        edges = (self.x - 0.1 * half, self.x + half) if self.sun_side > 0 else (self.x - half, self.x + 0.1 * half)
        self.patch.box(edges[0], top, edges[1], self.ground + 0.5, color * 1.15, label)


def paint_lamp_post(canvas: Canvas, camera: Camera, light: Light, rng, foot, side: int) -> None:
    """Paint a street lamp whose arm reaches to the right (side 1) or left (side -1)."""
    height = rng.uniform(4.5, 6.5)
    draw = _Upright(canvas, camera, light, foot, 1.6, height + 0.4)
    metal = vary(_METALS[int(rng.integers(len(_METALS)))], rng)
    draw.part([(-0.16, 0), (0.16, 0), (0.13, 0.9), (-0.13, 0.9)], metal * 0.9, POLE)
    draw.pole(height, rng.uniform(0.16, 0.22), metal)
    glow = (1.25, 1.1, 0.75) if light.name == "dusk" else (0.92, 0.92, 0.86)
    if rng.random() < 0.5:
        arm = max(0.14, _MIN_POLE_PX / draw.scale)
        draw.part(
            [(0, height), (side * 1.2, height + 0.2), (side * 1.2, height + 0.2 - arm), (0, height - arm)],
            metal,
            POLE,
        )
        head = [
            (side * 0.75, height + 0.28),
            (side * 1.5, height + 0.32),
            (side * 1.5, height),
            (side * 0.75, height - 0.02),
        ]
        draw.part(head, metal * 0.8, POLE)
        draw.part([(side * 0.8, height + 0.05), (side * 1.45, height + 0.07), (side * 1.45, height - 0.04),
                   (side * 0.8, height - 0.06)], glow, POLE)  # fmt: skip
    else:
        draw.part(
            [(-0.26, height + 0.1), (0.26, height + 0.1), (0.17, height - 0.42), (-0.17, height - 0.42)],
            glow,
            POLE,
        )
        draw.part([(-0.3, height + 0.1), (0.3, height + 0.1), (0.0, height + 0.36)], metal * 0.8, POLE)
    canvas.paste(draw.patch, 1.0 / foot[2])


def paint_traffic_light(canvas: Canvas, camera: Camera, light: Light, rng, foot) -> None:
    """Paint a post with three lamps. All of it has the class pole."""
    draw = _Upright(canvas, camera, light, foot, 0.4, 3.8)
    draw.pole(3.6, 0.17, vary(_METALS[int(rng.integers(len(_METALS)))], rng))
    draw.part([(-0.24, 2.6), (0.24, 2.6), (0.24, 3.65), (-0.24, 3.65)], (0.09, 0.10, 0.10), POLE)
    burning = int(rng.choice([0, 2]))
    colors = [(1.0, 0.15, 0.1), (1.0, 0.7, 0.1), (0.2, 0.95, 0.4)]
    for index, color in enumerate(colors):
        tone = np.asarray(color) * (1.25 if index == burning else 0.22)
        center = np.array([0.0, 3.45 - 0.33 * index])
        draw.part(center + ellipse_corners(12) * 0.13, tone / draw.lit, POLE)
    canvas.paste(draw.patch, 1.0 / foot[2])


def paint_bollard(canvas: Canvas, camera: Camera, light: Light, rng, foot) -> None:
    """Paint a post of one meter with a bright ring."""
    draw = _Upright(canvas, camera, light, foot, 0.2, 1.1)
    metal = vary(_METALS[int(rng.integers(len(_METALS)))], rng)
    draw.pole(1.0, 0.2, metal)
    half = max(0.1, 0.5 * _MIN_POLE_PX / draw.scale)
    draw.part([(-half, 0.78), (half, 0.78), (half, 0.9), (-half, 0.9)], (0.88, 0.86, 0.82), POLE)
    canvas.paste(draw.patch, 1.0 / foot[2])


def _round_sign(draw: _Upright, rng, center, radius: float) -> None:
    red, blue = np.array((0.80, 0.10, 0.12)), np.array((0.10, 0.28, 0.70))
    white = np.array((0.95, 0.94, 0.92))
    is_blue = rng.random() < 0.35
    corners = ellipse_corners(22)
    draw.part(center + corners * radius, white if is_blue else red, SIGN)
    draw.part(center + corners * radius * (0.9 if is_blue else 0.7), blue if is_blue else white, SIGN)
    if is_blue or rng.random() < 0.5:
        mark = white if is_blue else np.array((0.12, 0.12, 0.13))
        draw.part(center + np.array([(-0.12, -0.5), (0.12, -0.5), (0.12, 0.5), (-0.12, 0.5)]) * radius, mark, SIGN)
    else:
        bar = np.array([(-0.6, -0.16), (0.6, -0.16), (0.6, 0.16), (-0.6, 0.16)])
        draw.part(center + corners * radius, red, SIGN)
        draw.part(center + bar * radius * 1.15, white, SIGN)


def _triangle_sign(draw: _Upright, rng, center, radius: float) -> None:
    up = -1.0 if rng.random() < 0.25 else 1.0
    triangle = np.array([(-1.0, -0.72 * up), (1.0, -0.72 * up), (0.0, 1.0 * up)])
    draw.part(center + triangle * radius * 1.08, (0.80, 0.10, 0.12), SIGN)
    inner = (0.95, 0.94, 0.9) if rng.random() < 0.6 else (0.95, 0.80, 0.15)
    draw.part(center + (triangle * 0.62 - (0, 0.06 * up)) * radius, inner, SIGN)
    draw.part(
        center + np.array([(-0.08, -0.35), (0.08, -0.35), (0.08, 0.25), (-0.08, 0.25)]) * radius,
        (0.1, 0.1, 0.1),
        SIGN,
    )


def _board_sign(draw: _Upright, rng, center, radius: float) -> None:
    boards = [(0.10, 0.30, 0.66), (0.06, 0.44, 0.26), (0.94, 0.93, 0.9), (0.95, 0.78, 0.12)]
    board = np.array(boards[int(rng.integers(len(boards)))])
    ink = np.array((0.1, 0.1, 0.12) if board.mean() > 0.5 else (0.95, 0.95, 0.93))
    half = np.array([rng.uniform(0.9, 1.5), rng.uniform(0.7, 0.95)]) * radius
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    draw.part(center + square * half, ink, SIGN)
    draw.part(center + square * (half - 0.05), board, SIGN)
    for row in (-0.4, 0.0, 0.4):
        end = rng.uniform(0.2, 0.8)
        line = np.array([(-0.75, row - 0.11), (end, row - 0.11), (end, row + 0.11), (-0.75, row + 0.11)])
        draw.part(center + line * half, ink, SIGN)


_SIGN_SHAPES = (_round_sign, _triangle_sign, _board_sign)


def paint_sign_post(canvas: Canvas, camera: Camera, light: Light, rng, foot) -> None:
    """Paint a post (pole) with one or two traffic or street signs (sign)."""
    height = rng.uniform(2.5, 3.1)
    draw = _Upright(canvas, camera, light, foot, 1.1, height + 0.6)
    draw.pole(height, 0.13, vary(_METALS[int(rng.integers(len(_METALS)))], rng))
    radius = rng.uniform(0.42, 0.58)
    middle = height - 0.25
    for _ in range(2 if rng.random() < 0.3 else 1):
        _SIGN_SHAPES[int(rng.integers(3))](draw, rng, np.array([0.0, middle]), radius)
        middle -= 2.05 * radius
        radius *= 0.85
    canvas.paste(draw.patch, 1.0 / foot[2])


def paint_clutter(canvas: Canvas, camera: Camera, light: Light, rng, foot) -> None:
    """Paint a bench, a trash can or a mailbox: objects without a class, labeled void."""
    draw = _Upright(canvas, camera, light, foot, 1.2, 1.5)
    kind = int(rng.integers(3))
    if kind == 0:
        wood, iron = np.array((0.45, 0.30, 0.18)), np.array((0.15, 0.15, 0.16))
        for x in (-0.75, 0.65):
            draw.part([(x, 0), (x + 0.1, 0), (x + 0.1, 0.85), (x, 0.85)], iron, VOID)
        for low, high, tone in ((0.4, 0.48, 1.2), (0.56, 0.66, 1.0), (0.72, 0.84, 1.0)):
            draw.part([(-0.9, low), (0.9, low), (0.9, high), (-0.9, high)], wood * tone, VOID)
    elif kind == 1:
        color = vary([(0.16, 0.30, 0.20), (0.25, 0.26, 0.28), (0.45, 0.36, 0.20)][int(rng.integers(3))], rng)
        draw.part([(-0.27, 0), (0.27, 0), (0.33, 0.95), (-0.33, 0.95)], color, VOID)
        draw.part([(-0.36, 0.95), (0.36, 0.95), (0.3, 1.06), (-0.3, 1.06)], color * 0.7, VOID)
    else:
        color = vary([(0.72, 0.12, 0.12), (0.90, 0.72, 0.12)][int(rng.integers(2))], rng)
        draw.part([(-0.08, 0), (0.08, 0), (0.08, 0.6), (-0.08, 0.6)], (0.2, 0.2, 0.2), VOID)
        draw.part([(-0.28, 0.55), (0.28, 0.55), (0.28, 1.2), (-0.28, 1.2)], color, VOID)
        draw.part([(-0.2, 1.0), (0.2, 1.0), (0.2, 1.07), (-0.2, 1.07)], (0.1, 0.1, 0.1), VOID)
    canvas.paste(draw.patch, 1.0 / foot[2])
