"""Paint polygons, sprites and textured planes; each pixel keeps the nearest surface."""

import functools

import cv2
import numpy as np

from pyrseg_jax.scenes.camera import NEAR_M, Camera, clip_near

UNTOUCHED = 255
# Fractional bits of the corners that fillPoly takes. It computes with integers, and so draws the same labels on every machine.
_SHIFT = 3


def fixed_point(points: np.ndarray) -> np.ndarray:
    """Round pixel positions (n, 2), pixel centers at .5, to the fixed-point corners of cv2.fillPoly."""
    limited = np.minimum(np.maximum(points - 0.5, -20000.0), 20000.0)
    return np.rint(limited * (1 << _SHIFT)).astype(np.int32)


def fill_polygon(target: np.ndarray, points: np.ndarray, value) -> None:
    """Fill the polygon (n, 2) in pixels of `target` with a color or a number."""
    cv2.fillPoly(target, [fixed_point(points)], value, lineType=cv2.LINE_8, shift=_SHIFT)


class Patch:
    """A rectangle of the canvas on which one object is drawn: colors (h, w, 3) and labels (h, w).

    The labels start as `UNTOUCHED`, and only pixels that were drawn are pasted. Positions are in canvas pixels.
    """

    def __init__(self, size_px: int, left: float, top: float, right: float, bottom: float):
        self.x0, self.y0 = (int(np.clip(np.floor(value), 0, size_px)) for value in (left, top))
        self.x1, self.y1 = (int(np.clip(np.ceil(value), 0, size_px)) for value in (right, bottom))
        shape = (max(self.y1 - self.y0, 0), max(self.x1 - self.x0, 0))
        self.is_empty = 0 in shape
        self.colors: np.ndarray = np.zeros((*shape, 3), np.float32)
        self.labels = np.full(shape, UNTOUCHED, np.uint8)
        self.offset = np.array([self.x0, self.y0], np.float64)

    def polygon(self, points, color, label: int) -> None:
        """Fill a polygon (n, 2)."""
        if self.is_empty:
            return
        corners = [fixed_point(np.asarray(points, np.float64) - self.offset)]
        cv2.fillPoly(self.colors, corners, tuple(map(float, color)), lineType=cv2.LINE_8, shift=_SHIFT)
        cv2.fillPoly(self.labels, corners, label, lineType=cv2.LINE_8, shift=_SHIFT)

    def polygons(self, points: np.ndarray, colors: np.ndarray, label: int) -> None:
        """Fill polygons (n, corners, 2), each over the ones before, with one color (n, 3) each."""
        if self.is_empty:
            return
        corners = fixed_point(points - self.offset)
        for outline, color in zip(corners, colors.tolist(), strict=True):
            cv2.fillPoly(self.colors, [outline], color, lineType=cv2.LINE_8, shift=_SHIFT)
            cv2.fillPoly(self.labels, [outline], label, lineType=cv2.LINE_8, shift=_SHIFT)

    def convex_polygons(self, points: np.ndarray, colors: np.ndarray, label: int) -> None:
        """Fill many small convex polygons (n, corners, 2) with one color (n, 3) each."""
        if self.is_empty:
            return
        corners = fixed_point(points - self.offset)
        for outline, color in zip(corners, colors.tolist(), strict=True):
            cv2.fillConvexPoly(self.colors, outline, color, lineType=cv2.LINE_8, shift=_SHIFT)
            cv2.fillConvexPoly(self.labels, outline, label, lineType=cv2.LINE_8, shift=_SHIFT)

    def ellipse(self, center, radii, color, label: int, num_corners: int = 20) -> None:
        """Fill an ellipse with radii (across, along the height)."""
        self.polygon(np.asarray(center) + ellipse_corners(num_corners) * np.asarray(radii), color, label)

    def box(self, left, top, right, bottom, color, label: int) -> None:
        """Fill an upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color, label)

    def shade(self, factor: np.ndarray) -> None:
        """Multiply the colors by a map that broadcasts to (h, w, 1)."""
        self.colors *= factor.astype(np.float32)


@functools.lru_cache(maxsize=32)
def ellipse_corners(num_corners: int) -> np.ndarray:
    """Return the corners (n, 2) of a regular polygon of radius one."""
    angles = np.arange(num_corners) * (2 * np.pi / num_corners)
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    corners.setflags(write=False)
    return corners


class Canvas:
    """The picture: image (s, s, 3) of about 0..1, labels (s, s), nearness 1 / Z (s, s)."""

    def __init__(self, size_px: int):
        self.size_px = size_px
        self.image = np.zeros((size_px, size_px, 3), np.float32)
        self.labels = np.zeros((size_px, size_px), np.uint8)
        # The ground never hides what stands on it, so `nearness` counts standing objects only.
        self.nearness = np.zeros((size_px, size_px), np.float32)

    def paste(self, patch: Patch, nearness) -> None:
        """Paste what was drawn on `patch` where its nearness (scalar or (h, w), 1 / m) exceeds that of the canvas."""
        if patch.is_empty:
            return
        window = (slice(patch.y0, patch.y1), slice(patch.x0, patch.x1))
        drawn = (patch.labels != UNTOUCHED) & (self.nearness[window] < nearness)
        self._write(window, drawn.view(np.uint8), patch.colors, patch.labels, nearness)

    def _write(self, window, mask, colors, labels, nearness) -> None:
        cv2.copyTo(colors, mask, self.image[window])
        cv2.copyTo(labels, mask, self.labels[window])
        if np.isscalar(nearness):
            nearness = np.full(mask.shape, nearness, np.float32)
        cv2.copyTo(nearness, mask, self.nearness[window])

    def _seen_corners(self, camera: Camera, points: np.ndarray) -> np.ndarray | None:
        """Return the pixels (m, 2) of a clipped polygon (n, 3), or None if it lies outside the picture."""
        points = clip_near(points)
        if len(points) < 3:
            return None
        corners = camera.project(points)
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        is_inside = right > 0 and bottom > 0 and left < self.size_px and top < self.size_px
        return corners if is_inside else None

    def shows(self, camera: Camera, points: np.ndarray) -> bool:
        """Return whether a polygon (n, 3) is in the picture and not completely hidden by objects painted before."""
        corners = self._seen_corners(camera, points)
        if corners is None:
            return False
        left, top = np.clip(corners.min(axis=0) - 1, 0, self.size_px).astype(int)
        right, bottom = np.clip(corners.max(axis=0) + 2, 0, self.size_px).astype(int)
        nearest = 1 / max(float(points[:, 2].min()), NEAR_M)
        return bool((self.nearness[top:bottom, left:right] <= nearest).any())

    def paint_plane(self, camera: Camera, origin, across, down, outline, texture, label: int) -> None:
        """Paint a textured flat polygon.

        Args:
          origin, across, down: the plane, P = origin + u across + v down, in meters.
          outline: (n, 2) corners in (u, v).
          texture: (h, w, 3) that covers the bounding box of the outline.
        """
        outline = np.asarray(outline, np.float64)
        corners = self._seen_corners(camera, origin + outline[:, :1] * across + outline[:, 1:] * down)
        if corners is None:
            return
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        patch = Patch(self.size_px, left, top, right + 1, bottom + 1)
        fill_polygon(patch.labels, corners - patch.offset, label)
        to_pixels = camera.plane_matrix(origin, across, down)
        low, high = outline.min(axis=0), outline.max(axis=0)
        height, width = texture.shape[:2]
        scale = (high - low) / (width, height)
        to_plane = np.array([[scale[0], 0, low[0] + scale[0] / 2], [0, scale[1], low[1] + scale[1] / 2], [0, 0, 1]])
        to_patch = np.array([[1, 0, -patch.x0 - 0.5], [0, 1, -patch.y0 - 0.5], [0, 0, 1]])
        size = (patch.x1 - patch.x0, patch.y1 - patch.y0)
        try:
            inverse = np.linalg.inv(to_pixels)
        except np.linalg.LinAlgError:  # the plane is seen exactly edge-on, so there is nothing to paint
            return
        patch.colors = cv2.warpPerspective(
            texture,
            to_patch @ to_pixels @ to_plane,
            size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        x = np.arange(patch.x0, patch.x1)[None] + 0.5
        y = np.arange(patch.y0, patch.y1)[:, None] + 0.5
        nearness = (inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2]).astype(np.float32)
        self.paste(patch, nearness)
