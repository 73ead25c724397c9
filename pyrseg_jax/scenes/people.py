"""Paint people who stand or walk."""

import numpy as np

from pyrseg_jax.scenes.camera import Camera
from pyrseg_jax.scenes.canvas import Canvas, Patch
from pyrseg_jax.scenes.classes import PERSON
from pyrseg_jax.scenes.light import Light
from pyrseg_jax.scenes.textures import noise_patch, vary

_SKIN = [(0.90, 0.72, 0.60), (0.78, 0.57, 0.44), (0.55, 0.38, 0.28), (0.40, 0.27, 0.20)]
_HAIR = [(0.12, 0.09, 0.08), (0.30, 0.20, 0.12), (0.62, 0.48, 0.26), (0.60, 0.59, 0.57)]
_TOPS = [
    (0.80, 0.15, 0.17), (0.14, 0.24, 0.52), (0.90, 0.88, 0.84), (0.15, 0.15, 0.17), (0.93, 0.72, 0.16),
    (0.20, 0.50, 0.44), (0.55, 0.25, 0.52), (0.90, 0.48, 0.20), (0.46, 0.62, 0.82), (0.52, 0.50, 0.46),
]  # fmt: skip
_TROUSERS = [
    (0.16, 0.20, 0.34),
    (0.13, 0.13, 0.14),
    (0.42, 0.36, 0.28),
    (0.32, 0.33, 0.36),
    (0.28, 0.36, 0.50),
]


def paint_person(canvas: Canvas, camera: Camera, light: Light, rng, foot, height_m: float) -> None:
    """Paint a person of this height who stands at `foot` (3,)."""
    scale = height_m * camera.focal_px / foot[2]
    x, ground = camera.project(foot[None])[0]
    patch = Patch(canvas.size_px, x - 0.36 * scale, ground - 1.08 * scale, x + 0.36 * scale, ground + 2)
    if patch.is_empty:
        return
    mirror = 1 if rng.random() < 0.5 else -1

    def place(points) -> np.ndarray:
        """Convert body coordinates to pixels: the feet are at (0, 0), the top of the head at (0, 1)."""
        return np.array([x, ground]) + np.asarray(points) * (mirror * scale, -scale)

    lit = light.shade(np.array([0.0, 0.3, -0.95]))
    _dress(patch, place, rng, lit, scale)
    # The side away from the sun is darker.
    side = (np.arange(patch.x0, patch.x1) + 0.5 - x) / (0.16 * scale)
    patch.shade(1 + 0.14 * np.clip(side * np.sign(light.to_sun[0]), -1.4, 1.2)[None, :, None])
    patch.shade(1 + 0.06 * noise_patch(rng, *patch.labels.shape, max(0.05 * scale, 2.0), (6, 8)))
    canvas.paste(patch, 1.0 / foot[2])


def _dress(patch: Patch, place, rng, lit, scale: float) -> None:
    skin, hair, top, legs = (
        vary(choices[int(rng.integers(len(choices)))], rng, 0.12) * lit for choices in (_SKIN, _HAIR, _TOPS, _TROUSERS)
    )
    stride = rng.uniform(0.02, 0.13)
    has_skirt = rng.random() < 0.22
    _legs(patch, place, stride, skin if has_skirt else legs, lit)
    swing = rng.uniform(-0.05, 0.07)
    _limb(patch, place, [(-0.09, 0.79), (-0.135, 0.63), (-0.11 - swing, 0.47)], 0.034, top * 0.78)
    if has_skirt:
        patch.polygon(place([(-0.085, 0.55), (0.085, 0.55), (0.15, 0.3), (-0.15, 0.3)]), legs, PERSON)
    is_coat = rng.random() < 0.3
    hem = 0.36 if is_coat else 0.48
    patch.polygon(
        place([(-0.045, 0.84), (-0.115, 0.81), (-0.10, 0.62), (-0.105, hem), (0.105, hem), (0.095, 0.62),
               (0.115, 0.81), (0.045, 0.84)]), top, PERSON,
    )  # fmt: skip
    _limb(patch, place, [(0.1, 0.79), (0.14, 0.64), (0.13 + swing, 0.48)], 0.034, top * 0.9)
    for hand in ((-0.11 - swing, 0.455), (0.13 + swing, 0.465)):
        patch.ellipse(place([hand])[0], (0.022 * scale, 0.026 * scale), skin, PERSON, 10)
    patch.polygon(place([(-0.028, 0.88), (0.028, 0.88), (0.03, 0.82), (-0.03, 0.82)]), skin * 0.85, PERSON)
    patch.ellipse(place([(0, 0.935)])[0], (0.057 * scale, 0.068 * scale), hair, PERSON)
    if rng.random() < 0.65:
        patch.ellipse(place([(0.008, 0.918)])[0], (0.047 * scale, 0.055 * scale), skin, PERSON)
    elif rng.random() < 0.5:
        patch.polygon(place([(-0.057, 0.93), (0.057, 0.93), (0.06, 0.8), (-0.06, 0.8)]), hair, PERSON)
    if rng.random() < 0.3:
        bag = vary(_TOPS[int(rng.integers(len(_TOPS)))], rng) * lit * 0.8
        patch.polygon(place([(0.09, 0.5), (0.19, 0.5), (0.2, 0.37), (0.08, 0.37)]), bag, PERSON)


def _legs(patch: Patch, place, stride: float, color, lit) -> None:
    shoe = np.array((0.13, 0.11, 0.10)) * lit
    for sign, tone in ((-1, 0.75), (1, 1.0)):
        hip, foot = 0.045 * sign, (0.045 + stride) * sign
        knee = (hip + foot) / 2 + 0.02
        patch.polygon(
            place([(hip - 0.055, 0.52), (hip + 0.055, 0.52), (knee + 0.043, 0.27), (foot + 0.034, 0.03),
                   (foot - 0.034, 0.03), (knee - 0.04, 0.27)]), color * tone, PERSON,
        )  # fmt: skip
        patch.polygon(
            place([(foot - 0.036, 0.04), (foot + 0.03, 0.04), (foot + 0.07, 0), (foot - 0.036, 0)]),
            shoe,
            PERSON,
        )


def _limb(patch: Patch, place, joints, half_width: float, color) -> None:
    """Paint a bent arm as a strip around its joints."""
    joints = np.asarray(joints)
    left, right = joints - (half_width, 0), joints + (half_width, 0)
    patch.polygon(place(np.concatenate([left, right[::-1]])), color, PERSON)
