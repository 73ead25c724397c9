"""Place objects in street coordinates: s meters to the right of the middle line, t meters along it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Street:
    """The ground plan of a scene.

    `bands` are (upper end in s, class), sorted from left to right; the last one ends at infinity. The middle
    line bends by `bend` * t² / 2. The camera stands at (camera_s, 0), turned by `yaw` radians to the right.
    """

    kind: str
    bands: tuple[tuple[float, int], ...]
    yaw: float
    camera_s: float
    bend: float = 0.0
    ponds: tuple[tuple[float, float, float, float], ...] = ()  # ellipses: s, t, half axes

    def offset_m(self, t):
        """Return how far the middle line has bent to the side after t meters."""
        along = np.clip(t, -30.0, 140.0)
        return self.bend * along * np.abs(along) / 2

    def to_camera(self, s, t, height_m=0.0) -> np.ndarray:
        """Return the camera coordinates (n, 3) of the points (s, t, height)."""
        s, t, height_m = np.broadcast_arrays(np.asarray(s, float), np.asarray(t, float), np.asarray(height_m, float))
        ahead = s + self.offset_m(t) - self.camera_s
        x = ahead * np.cos(self.yaw) - t * np.sin(self.yaw)
        z = ahead * np.sin(self.yaw) + t * np.cos(self.yaw)
        return np.stack([x, height_m, z], axis=-1)

    def from_camera(self, x, z):
        """Return (s, t) of the ground points (x, z)."""
        cosine, sine = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        t = z * cosine - x * sine
        return x * cosine + z * sine + np.float32(self.camera_s) - self.offset_m(t).astype(np.float32), t

    def heading(self, t: float) -> np.ndarray:
        """Return the unit vector of increasing t at t, in camera coordinates."""
        step = self.to_camera(0.0, t + 0.5) - self.to_camera(0.0, t - 0.5)
        return step / np.linalg.norm(step)

    def class_at(self, s: float) -> int:
        """Return the class of the ground at s (ponds do not count)."""
        return next((label for end, label in self.bands if s < end), self.bands[-1][1])

    def band(self, label: int) -> list[tuple[float, float]]:
        """Return the stretches (from, to) in s that have this class, limited to 60 m on either side."""
        starts = (-60.0, *(end for end, _ in self.bands[:-1]))
        return [
            (max(start, -60.0), min(end, 60.0))
            for start, (end, this) in zip(starts, self.bands, strict=True)
            if this == label
        ]
