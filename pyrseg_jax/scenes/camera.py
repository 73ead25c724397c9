"""Project the world into the picture.

World coordinates are in meters: X to the right, Y up from the ground, Z away from the camera. The camera stands at X = Z = 0 and
looks along Z without pitch. Instead, the horizon is shifted, so that vertical lines stay vertical.
"""

from dataclasses import dataclass

import numpy as np

NEAR_M = 0.4


@dataclass(frozen=True)
class Camera:
    """A pinhole camera for a square picture of `size_px` × `size_px` pixels."""

    size_px: int
    focal_px: float
    horizon_px: float
    height_m: float

    @property
    def matrix(self) -> np.ndarray:
        """Return the 3×3 matrix that takes (X, Y - height, Z) to homogeneous pixels (x, y, 1) * Z."""
        return np.array(
            [[self.focal_px, 0.0, self.size_px / 2], [0.0, -self.focal_px, self.horizon_px], [0.0, 0.0, 1.0]]
        )

    def halved(self) -> "Camera":
        """Return the same view on a picture of half the size."""
        return Camera(self.size_px // 2, self.focal_px / 2, self.horizon_px / 2, self.height_m)

    def is_beside(self, points: np.ndarray) -> bool:
        """Return whether all points (n, 3) are behind, left of, or right of the camera's view."""
        x, z = points[:, 0], points[:, 2]
        half = 0.5 * self.size_px / self.focal_px * z
        return bool(z.max() < NEAR_M or (x > half).all() or (x < -half).all())

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project points (n, 3) with Z > 0 to pixels (n, 2)."""
        depth = points[:, 2]
        x = self.size_px / 2 + self.focal_px * points[:, 0] / depth
        y = self.horizon_px + self.focal_px * (self.height_m - points[:, 1]) / depth
        return np.stack([x, y], axis=1)

    def plane_matrix(self, origin: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
        """Return the homography from plane coordinates (u, v, 1), P = origin + u across + v down, to pixels."""
        shifted = origin - np.array([0.0, self.height_m, 0.0])
        return self.matrix @ np.stack([across, down, shifted], axis=1)

    def ground_grid(self) -> tuple[int, np.ndarray, np.ndarray]:
        """Return the first row below the horizon and, from there on, the ground's X (h, w) and Z (h, 1)."""
        first_row = min(max(int(np.floor(self.horizon_px)) + 1, 0), self.size_px)
        rows = np.arange(first_row, self.size_px, dtype=np.float32)[:, None] + 0.5
        depth = np.minimum(self.focal_px * self.height_m / (rows - self.horizon_px), 500.0).astype(np.float32)
        columns = np.arange(self.size_px, dtype=np.float32)[None] + (0.5 - self.size_px / 2)
        return first_row, columns * (depth / np.float32(self.focal_px)), depth


def clip_near(points: np.ndarray) -> np.ndarray:
    """Clip a polygon (n, 3) to Z >= NEAR_M; the result (m, 3) may be empty."""
    if points[:, 2].min() >= NEAR_M:
        return points
    kept = []
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        if start[2] >= NEAR_M:
            kept.append(start)
        if (start[2] >= NEAR_M) != (end[2] >= NEAR_M):
            kept.append(start + (end - start) * ((NEAR_M - start[2]) / (end[2] - start[2])))
    return np.array(kept, dtype=np.float64).reshape(-1, 3)
