"""Paint upright boxes and the roofs on them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyrseg_jax.scenes.camera import NEAR_M, Camera
from pyrseg_jax.scenes.street import Street

UP = np.array([0.0, 1.0, 0.0])
DOWN = -UP


@dataclass(frozen=True)
class Face:
    """One upright side of a box; `origin` is an upper corner, `normal` points outward."""

    index: int
    origin: np.ndarray
    across: np.ndarray
    width_m: float
    normal: np.ndarray

    def corners(self, height_m: float, above_m: float = 0.0) -> np.ndarray:
        """Return the corners (4, 3) of a rectangle of this height from `above_m` above the upper edge."""
        left, right = self.origin, self.origin + self.width_m * self.across
        top, bottom = above_m * UP, (above_m - height_m) * UP
        return np.array([left + top, right + top, right + bottom, left + bottom])

    def texels_per_m(self, camera: Camera, height_m: float, limit: float = 24.0) -> float:
        """Return a texture resolution that suits the size of the face in the picture, at most about 60,000 texels."""
        ends = np.array([self.origin, self.origin + self.width_m * self.across])
        visible = np.clip(ends[:, 2], 2.0, None)
        seen = camera.focal_px / float(np.sqrt(visible[0] * visible[1]))
        return float(np.clip(min(0.7 * seen, np.sqrt(60_000 / (self.width_m * height_m))), 2.0, limit))


def box_corners(street: Street, s_range, t_range) -> np.ndarray:
    """Return the corners (4, 3) of a box on the ground, in order: front (first s) at t1, t2, back at t2, t1."""
    (s1, s2), (t1, t2) = s_range, t_range
    return street.to_camera([s1, s1, s2, s2], [t1, t2, t2, t1])


def visible_faces(base: np.ndarray, height_m: float) -> Iterator[Face]:
    """Yield the upright sides of the box over `base` (4, 3) that face the camera, farthest first."""
    center = base.mean(axis=0)
    faces = []
    for index, (start, end) in enumerate(zip(base, np.roll(base, -1, axis=0), strict=True)):
        width = float(np.linalg.norm(end - start))
        across = (end - start) / width
        normal = np.array([across[2], 0.0, -across[0]])
        normal *= np.sign(np.dot(normal, start - center))
        if np.dot(normal, start) < 0 and max(start[2], end[2]) > NEAR_M:
            faces.append(Face(index, start + height_m * UP, across, width, normal))
    yield from sorted(faces, key=lambda face: -(face.origin[2] + 0.5 * face.width_m * face.across[2]))


def roof_planes(base: np.ndarray, height_m: float, rise_m: float, ridge_along: int, overhang_m: float = 0.35):
    """Yield (origin, across, down, width, length, normal) of a gabled roof's slopes that face the camera.

    `ridge_along` is 0 where the ridge runs along the front (corner 0 to 1), 1 where it runs front to back.
    """
    corners = np.roll(base, -ridge_along, axis=0)
    for first, second, third, fourth in ((0, 1, 2, 3), (2, 3, 0, 1)):
        eaves = corners[[first, second]] + height_m * UP
        ridge = (corners[[first, second]] + corners[[fourth, third]]) / 2 + (height_m + rise_m) * UP
        width = float(np.linalg.norm(ridge[1] - ridge[0]))
        across = (ridge[1] - ridge[0]) / width
        slope = eaves[0] - ridge[0]
        length = float(np.linalg.norm(slope))
        down = slope / length
        normal = np.cross(across, down)
        normal *= np.sign(normal[1])
        if np.dot(normal, ridge[0] - np.array([0, 2.0, 0])) < 0:
            yield ridge[0], across, down, width, length + overhang_m, normal
