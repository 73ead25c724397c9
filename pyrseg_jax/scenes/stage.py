"""Collect the objects of a scene before they are painted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from pyrseg_jax.scenes.camera import Camera
from pyrseg_jax.scenes.canvas import Canvas, ellipse_corners
from pyrseg_jax.scenes.classes import WATER
from pyrseg_jax.scenes.layout import Layout
from pyrseg_jax.scenes.light import Light


@dataclass(frozen=True)
class Placed:
    """An object in the scene: its distance, footprint (n, 2) in X and Z, height, and painter."""

    distance_m: float
    footprint: np.ndarray
    height_m: float
    paint: Callable[[Canvas], None]


@dataclass
class Stage:
    """The objects of a scene. Each one takes its place on the ground, so that none stands inside another."""

    camera: Camera
    layout: Layout
    light: Light
    rng: np.random.Generator
    placed: list[Placed] = field(default_factory=list)
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def spawn(self) -> np.random.Generator:
        """Return a random generator for one object, whose painter may then draw any number of values."""
        return np.random.default_rng(self.rng.integers(2**63))

    def is_seen(self, point: np.ndarray, near_m: float, far_m: float, margin_m: float = 0.0) -> bool:
        """Return whether the point (3,) is within these distances of the camera and inside the picture."""
        x, _, z = point
        half = 0.5 * self.camera.size_px / self.camera.focal_px
        return bool(near_m < z < far_m and abs(x) < half * z + margin_m)

    def ground_class(self, s: float, t: float) -> int:
        """Return the class of the ground at (s, t). The rough shore of a pond counts as water."""
        street = self.layout.street
        for middle_s, middle_t, half_s, half_t in street.ponds:
            if ((s - middle_s) / half_s) ** 2 + ((t - middle_t) / half_t) ** 2 < 1.35:
                return WATER
        return street.class_at(s)

    def take(self, s: float, t: float, radius_m: float) -> bool:
        """Take a round place on the ground; return whether it was still free."""
        if any((s - a) ** 2 + (t - b) ** 2 < (radius_m + radius) ** 2 for a, b, radius in self.taken):
            return False
        self.taken.append((s, t, radius_m))
        return True

    def add(self, foot: np.ndarray, footprint: np.ndarray, height_m: float, painter, *arguments) -> None:
        """Add an object whose painter takes (canvas, camera, light, rng, *arguments)."""
        rng = self.spawn()
        paint = partial(_paint, painter, self.camera, self.light, rng, arguments)
        self.placed.append(Placed(float(foot[2]), footprint, height_m, paint))

    def add_round(self, foot: np.ndarray, radius_m: float, height_m: float, painter, *arguments) -> None:
        """Add a thin object that stands at `foot` (3,), with a round footprint."""
        footprint = foot[[0, 2]] + radius_m * ellipse_corners(8)
        self.add(foot, footprint, height_m, painter, foot, *arguments)


def _paint(painter, camera, light, rng, arguments, canvas) -> None:
    painter(canvas, camera, light, rng, *arguments)
