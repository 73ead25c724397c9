"""Make surfaces: value noise, bricks, stones, planks, plaster.

Textures are float32 factors around 1 (h, w, 1) or colors (h, w, 3).
"""

import functools

import cv2
import numpy as np

TABLE_PX = 512


@functools.lru_cache(maxsize=16)
def noise_table(first_octave: int, last_octave: int, roughness: float = 0.5) -> np.ndarray:
    """Return tileable value noise (512, 512) of mean 0 and deviation 1, with octaves of 2**n cells per side."""
    rng = np.random.default_rng((first_octave, last_octave))
    total = np.zeros((TABLE_PX, TABLE_PX), np.float32)
    for octave in range(first_octave, last_octave + 1):
        cells = 2**octave
        grid = np.pad(rng.standard_normal((cells, cells)).astype(np.float32), 2, mode="wrap")
        scale = TABLE_PX // cells
        smooth = cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else grid
        start = 2 * scale
        total += roughness ** (octave - first_octave) * smooth[start : start + TABLE_PX, start : start + TABLE_PX]
    total -= total.mean()
    total /= total.std()
    total.setflags(write=False)
    return total


@functools.lru_cache(maxsize=16)
def _doubled_table(first_octave: int, last_octave: int) -> np.ndarray:
    """Return the noise table repeated twice in both directions, so that any piece of it is a slice."""
    return np.tile(noise_table(first_octave, last_octave), (2, 2))


def sample_noise(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Look up tileable noise at positions in table pixels (h, w)."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    period = np.float32(TABLE_PX)
    wrapped = []
    for axis in (x, y):
        axis = axis.astype(np.float32, copy=False)
        # Several times faster than np.mod.
        wrapped.append(np.broadcast_to(axis - period * np.floor(axis * (1 / period)), shape))
    return cv2.remap(table, wrapped[0], wrapped[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def noise_patch(rng, height: int, width: int, cell_px: float, octaves: tuple[int, int] = (5, 8)) -> np.ndarray:
    """Cut a piece (height, width, 1) of noise whose coarsest cell is about `cell_px` pixels wide."""
    step = TABLE_PX / 2 ** octaves[0] / max(cell_px, 1e-3)
    rows, columns = (min(max(int(np.ceil(length * step)) + 1, 2), TABLE_PX) for length in (height, width))
    y0, x0 = rng.integers(0, TABLE_PX, 2)
    piece = _doubled_table(*octaves)[y0 : y0 + rows, x0 : x0 + columns]
    return cv2.resize(piece, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]


def vary(color, rng, amount: float = 0.06) -> np.ndarray:
    """Jitter a color (3,), mostly in brightness, a little in hue."""
    factor = 1 + amount * rng.uniform(-1, 1) + amount * 0.4 * rng.uniform(-1, 1, 3)
    return np.clip(np.asarray(color, np.float64) * factor, 0.02, 1.0)


def plain(rng, color, height: int, width: int, texels_per_m: float, strength: float = 0.05) -> np.ndarray:
    """Make plaster or concrete (h, w, 3): stains of a meter and fine grain."""
    stains = noise_patch(rng, height, width, 1.2 * texels_per_m, (4, 8))
    grain = noise_patch(rng, height, width, 2.0, (7, 8))
    return np.asarray(color, np.float32) * (1 + strength * stains + 0.6 * strength * grain)


def bricks(rng, color, height: int, width: int, texels_per_m: float, course_m: float = 0.22) -> np.ndarray:
    """Make a brick wall (h, w, 3) in running bond with lighter joints.

    Courses are drawn larger than real ones: at 256 pixels real bricks would blur to a plain color.
    """
    course = max(course_m * texels_per_m, 2.0)
    rows = np.arange(height) / course
    offset = (np.floor(rows) % 2) * 0.5
    columns = np.arange(width)[None] / (2.4 * course) + offset[:, None]
    table = noise_table(8, 8)
    per_brick = table[np.floor(rows).astype(int)[:, None] % TABLE_PX, (np.floor(columns) * 3).astype(int) % TABLE_PX]
    in_joint = (np.mod(rows, 1)[:, None] < 0.2) | (np.mod(columns, 1) < 0.09)
    faces = np.asarray(color, np.float32) * (1 + 0.09 * per_brick.astype(np.float32))[..., None]
    joints = np.asarray(color, np.float32) * 0.45 + 0.36
    # Distant walls have courses of two or three texels, where joints must fade, or they would alias into stripes.
    fade = np.float32(np.clip((course - 2.0) / 4.0, 0.15, 0.8))
    wall = np.where(in_joint[..., None], faces + fade * (joints - faces), faces).astype(np.float32)
    return wall * (1 + 0.05 * noise_patch(rng, height, width, 1.5 * texels_per_m, (4, 7)))


def stones(rng, color, height: int, width: int, texels_per_m: float, stone_m: float = 0.4) -> np.ndarray:
    """Make rubble masonry (h, w, 3): cells of a jittered grid, dark joints."""
    if texels_per_m > 14.0:  # stones are coarse, so draw them small and enlarge them
        small_height, small_width = (max(int(length * 14.0 / texels_per_m), 2) for length in (height, width))
        small = stones(rng, color, small_height, small_width, 14.0, stone_m)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    rows, columns = (max(int(round(length / (stone_m * texels_per_m))), 1) for length in (height, width))
    points = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).astype(np.float32)
    points += 0.5 + rng.uniform(-0.33, 0.33, points.shape).astype(np.float32)
    tone = rng.uniform(0.78, 1.2, (rows, columns)).astype(np.float32)
    y = (np.arange(height, dtype=np.float32) + 0.5)[:, None] * (rows / height)
    x = (np.arange(width, dtype=np.float32) + 0.5)[None] * (columns / width)
    best, second = np.full((height, width), 9.0, np.float32), np.full((height, width), 9.0, np.float32)
    chosen = np.ones((height, width), np.float32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            row = np.clip(y.astype(int) + dy, 0, rows - 1)
            column = np.clip(x.astype(int) + dx, 0, columns - 1)
            center = points[row, column]
            distance = (center[..., 0] - x) ** 2 + (center[..., 1] - y) ** 2
            is_nearest = distance < best
            second = np.where(is_nearest, best, np.where(distance > best, np.minimum(second, distance), second))
            chosen = np.where(is_nearest, tone[row, column], chosen)
            best = np.minimum(best, distance)
    joint = np.clip((np.sqrt(second) - np.sqrt(best)) / 0.22, 0, 1)
    return np.asarray(color, np.float32) * (chosen * (0.6 + 0.4 * joint))[..., None]


def planks(rng, color, height: int, width: int, texels_per_m: float, plank_m: float = 0.22) -> np.ndarray:
    """Make an upright board fence (h, w, 3)."""
    columns = np.arange(width) / max(plank_m * texels_per_m, 3.0)
    tone = 1 + 0.08 * noise_table(8, 8)[7, np.floor(columns).astype(int) % TABLE_PX]
    gap = np.where(np.mod(columns, 1) < 0.16, 0.6, 1.0)
    rails = np.ones(height)
    rails[int(height * 0.22) : max(int(height * 0.3), int(height * 0.22) + 1)] = 0.85
    grain = 1 + 0.05 * noise_patch(rng, height, width, 3.0, (6, 8))
    return (np.asarray(color, np.float32) * (tone * gap * rails[:, None])[..., None] * grain).astype(np.float32)


MATERIALS = {"plain": plain, "bricks": bricks, "stones": stones, "planks": planks}
