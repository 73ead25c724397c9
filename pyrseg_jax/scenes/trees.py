"""Paint trees, conifers, poplars and bushes as upright pictures on the ground."""

import numpy as np

from pyrseg_jax.scenes.camera import Camera
from pyrseg_jax.scenes.canvas import UNTOUCHED, Canvas, Patch, ellipse_corners
from pyrseg_jax.scenes.classes import TREE
from pyrseg_jax.scenes.light import Light
from pyrseg_jax.scenes.textures import noise_patch, vary

_LEAVES = [(0.23, 0.40, 0.14), (0.30, 0.46, 0.16), (0.18, 0.33, 0.15), (0.36, 0.44, 0.17), (0.20, 0.37, 0.21)]
_AUTUMN = [(0.62, 0.42, 0.14), (0.58, 0.30, 0.13), (0.60, 0.52, 0.18)]
_BARK = [(0.34, 0.26, 0.20), (0.42, 0.37, 0.32), (0.28, 0.22, 0.18)]

# Width of the crown relative to its height, and the share of the height that is bare trunk.
SHAPES = {
    "round": (0.75, 0.26),
    "oval": (0.52, 0.22),
    "poplar": (0.26, 0.1),
    "conifer": (0.46, 0.1),
    "bush": (1.3, 0.0),
}


def paint_tree(canvas: Canvas, camera: Camera, light: Light, rng, foot, height_m: float, shape: str) -> None:
    """Paint a tree that stands at `foot` (3,)."""
    scale = camera.focal_px / foot[2]
    x, ground = camera.project(foot[None])[0]
    height = height_m * scale
    width_ratio, trunk_ratio = SHAPES[shape]
    radii = np.array([0.5 * width_ratio * height * rng.uniform(0.85, 1.15), 0.5 * height * (1 - trunk_ratio)])
    center = np.array([x, ground - height * trunk_ratio - radii[1]])
    depth, wide = foot[2], 0.63 * width_ratio * height_m
    card = [
        (foot[0] + dx, y, depth) for dx, y in ((-wide, 0), (wide, 0), (wide, 1.1 * height_m), (-wide, 1.1 * height_m))
    ]
    if not canvas.shows(camera, np.array(card)):
        return
    spread = 1.25 * radii[0] + 3
    patch = Patch(canvas.size_px, x - spread, center[1] - 1.2 * radii[1], x + spread, ground + 2)
    if patch.is_empty:
        return
    leaves = _AUTUMN if rng.random() < 0.10 and shape in ("round", "oval") else _LEAVES
    green = vary(leaves[int(rng.integers(len(leaves)))], rng, 0.12)
    if shape != "bush":
        _trunk(patch, rng, light, x, ground, center, radii, height)
    to_sun = np.array([light.to_sun[0], -light.to_sun[1]])
    if shape == "conifer":
        _layers(patch, rng, light, green, center, radii, to_sun)
    else:
        _crown(patch, rng, light, green, center, radii, to_sun)
    leaf_px = float(np.clip(0.16 * scale, 2.0, 9.0))
    clumps = noise_patch(rng, *patch.labels.shape, 4.5 * leaf_px, (5, 7))
    single = noise_patch(rng, *patch.labels.shape, leaf_px, (7, 8))
    patch.shade(1 + 0.16 * clumps + 0.17 * single)
    canvas.paste(patch, 1.0 / foot[2])


def _trunk(patch: Patch, rng, light, x, ground, center, radii, height) -> None:
    bark = vary(_BARK[int(rng.integers(len(_BARK)))], rng, 0.1) * light.shade((0, 0, -1.0))
    half = max(0.028 * height, 2.6)
    lean = rng.uniform(-0.04, 0.04) * height
    top = center[1] + 0.2 * radii[1]
    patch.polygon(
        [(x - 1.5 * half, ground), (x - 0.9 * half, ground - 0.06 * height), (x + lean - 0.6 * half, top),
         (x + lean + 0.6 * half, top), (x + 0.9 * half, ground - 0.06 * height), (x + 1.5 * half, ground)],
        bark, TREE,
    )  # fmt: skip
    lit = 1.25 if light.to_sun[0] > 0 else 0.7
    right_edge = [(x + lean + 0.6 * half, top), (x + 1.3 * half, ground)]
    patch.polygon([(x + 0.2 * half, ground), (x + lean, top), *right_edge], bark * lit, TREE)
    for side in (-1, 1):
        fork = np.array([x + 0.6 * lean, 0.6 * top + 0.4 * ground if radii[1] > 0.3 * height else top])
        tip = center + (side * 0.55 * radii[0], -0.1 * radii[1])
        patch.polygon([fork + (0, -half), tip, fork + (0, 0.6 * half)], bark * 0.9, TREE)


def _leaf_light(light: Light, green: np.ndarray, brightness) -> np.ndarray:
    """Shade a clump of leaves: dark and bluish inside, warm where the sun shines on it (brightness 0..1)."""
    return green * (light.ambient * (0.55 + 0.45 * brightness) + light.sun * 1.25 * brightness**1.5)


def _crown(patch: Patch, rng, light, green, center, radii, to_sun) -> None:
    """Fill the crown with overlapping clumps, shaded ones first, and then with ragged leaves on the outline."""
    num = int(np.clip(radii[0] / 3, 6, 34))
    angles = rng.uniform(0, 2 * np.pi, num)
    reach = np.sqrt(rng.uniform(0.0, 1.0, num)) * 0.74
    offsets = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach[:, None]
    facing = offsets @ to_sun + 0.25 * rng.standard_normal(num)
    patch.polygon(_ragged(rng, center, radii * 0.72, 26), _leaf_light(light, green, 0.12), TREE)
    order = np.argsort(facing, kind="stable")
    brightness = np.clip(0.42 + 0.5 * facing[order], 0.05, 1.0)
    sizes = rng.uniform(0.24, 0.42, (num, 1, 1)) * rng.uniform(0.8, 1.18, (num, 15, 1))
    clumps = center + (offsets[order][:, None] + ellipse_corners(15) * sizes) * radii
    patch.polygons(clumps, _leaf_light(light, green, brightness[:, None]), TREE)
    _loose_leaves(patch, rng, light, green, center, radii, to_sun)


def _loose_leaves(patch: Patch, rng, light, green, center, radii, to_sun) -> None:
    """Scatter leaves along the outline, and cut a few gaps that show the background."""
    num = int(np.clip(radii[0] * 0.9, 6, 70))
    angles = rng.uniform(0, 2 * np.pi, num)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    middles = center + directions * radii * rng.uniform(0.8, 1.03, (num, 1))
    brightness = np.clip(0.4 + 0.4 * directions @ to_sun + rng.uniform(-0.2, 0.2, num), 0.05, 1.0)
    sizes = np.clip(0.07 * radii[0], 1.5, 5.0) * rng.uniform(0.6, 1.5, (num, 1, 1))
    colors = _leaf_light(light, green, brightness[:, None])
    patch.convex_polygons(middles[:, None] + ellipse_corners(6) * sizes, colors, TREE)
    for _ in range(int(rng.integers(0, 4)) if radii[0] > 22 else 0):
        angle = rng.uniform(0, 2 * np.pi)
        middle = center + np.array([np.cos(angle), np.sin(angle)]) * radii * rng.uniform(0.5, 0.85)
        patch.polygon(_ragged(rng, middle, radii * 0.055, 8), (0, 0, 0), UNTOUCHED)


def _layers(patch: Patch, rng, light, green, center, radii, to_sun) -> None:
    """Fill a conifer with layers of branches, wider toward the ground, upper ones over lower ones."""
    num = 7
    for layer in range(num):
        low, high = 1 - 2 * layer / num, 1 - 2 * (layer + 1.9) / num
        half = radii[0] * (1 - layer / (num + 0.6)) * rng.uniform(0.9, 1.08)
        teeth = 9
        hem = np.stack([np.linspace(-half, half, teeth), np.full(teeth, low * radii[1])], axis=1)
        hem[1::2, 1] -= 0.1 * radii[1]
        hem += rng.uniform(-0.03, 0.03, hem.shape) * radii
        tip = np.array([[0.0, max(high, -1.0) * radii[1]]])
        base = _leaf_light(light, green * 0.85, 0.32 + 0.02 * layer)
        patch.polygon(center + np.concatenate([hem, tip]), base, TREE)
        lit = hem[hem[:, 0] * np.sign(to_sun[0] or 1.0) > -0.2 * half]
        inner = np.concatenate([lit * (0.9, 1.0) - (0, 0.04 * radii[1]), tip])
        patch.polygon(center + inner, _leaf_light(light, green * 0.85, 0.6), TREE)


def _ragged(rng, center, radii, num_corners: int) -> np.ndarray:
    """Return an irregular closed outline (n, 2) about an ellipse."""
    corners = ellipse_corners(num_corners) * rng.uniform(0.8, 1.18, (num_corners, 1))
    return np.asarray(center) + corners * radii
