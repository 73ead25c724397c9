"""Draw the ground plan of a scene: the kind of place, its bands of ground, and where the camera stands."""

from dataclasses import dataclass, replace

import numpy as np

from pyrseg_jax.scenes.classes import GRASS, PAVEMENT, ROAD, WATER
from pyrseg_jax.scenes.street import Street


@dataclass(frozen=True)
class HouseLine:
    """A row of houses whose fronts stand at `s`, and whose backs lie toward `side` (1 right, -1 left)."""

    s: float
    side: int
    is_urban: bool
    height_m: tuple[float, float]
    gap_share: float
    t_range: tuple[float, float] = (-14.0, 100.0)


@dataclass(frozen=True)
class WallLine:
    """A wall along the street at `s`, or a row of bushes if `is_hedge`."""

    s: float
    t_range: tuple[float, float]
    is_hedge: bool = False


@dataclass(frozen=True)
class TreeLine:
    """Trees around `s`, scattered by `spread_m`, one every `every_m` meters."""

    s: float
    spread_m: float
    every_m: float
    height_m: tuple[float, float]
    t_range: tuple[float, float] = (2.0, 75.0)


@dataclass(frozen=True)
class Layout:
    """The ground plan, and the objects along it.

    People walk on the stretches `walks` (from, to) in s. Poles stand along `curbs`.
    """

    street: Street
    houses: tuple[HouseLine, ...] = ()
    walls: tuple[WallLine, ...] = ()
    trees: tuple[TreeLine, ...] = ()
    walks: tuple[tuple[float, float], ...] = ()
    curbs: tuple[float, ...] = ()
    road: tuple[float, float] | None = None
    is_urban: bool = False


def _mirrored(bands):
    """Swap left and right of bands (upper end, class)."""
    ends = [end for end, _ in bands[:-1]]
    labels = [label for _, label in bands]
    return tuple(zip([*(-end for end in reversed(ends)), np.inf], reversed(labels), strict=True))


def _view(rng, left: float, right: float, across_share: float) -> tuple[float, float]:
    """Draw (camera_s, yaw): most views look along the street, some across it from its edge."""
    if rng.random() < across_share:
        side = 1 if rng.random() < 0.5 else -1
        camera_s = left + 0.4 if side > 0 else right - 0.4
        return camera_s, side * rng.uniform(0.95, 1.57)
    camera_s = rng.uniform(left + 0.8, right - 0.8)
    middle = (left + right) / 2
    inward = np.arctan2(middle - camera_s, 26.0)
    return camera_s, inward + rng.uniform(-0.22, 0.22)


def _city(rng) -> Layout:
    half, walk = rng.uniform(3.0, 5.2), rng.uniform(2.6, 4.6)
    edge = half + walk
    camera_s, yaw = _view(rng, -edge, edge, 0.25)
    bands = ((-half, PAVEMENT), (half, ROAD), (np.inf, PAVEMENT))
    bend = 0.0 if abs(yaw) > 0.8 or rng.random() < 0.4 else rng.uniform(-0.006, 0.006)
    height = (7.0, 12.0) if rng.random() < 0.5 else (9.0, 19.0)
    is_open = rng.random() < 0.4  # a wall with trees behind it instead of houses on one side
    houses = [HouseLine(-edge, -1, True, height, 0.08), HouseLine(edge, 1, True, height, 0.08)]
    walls, trees = [], []
    if is_open:
        side = houses.pop(int(rng.integers(2)))
        s = edge if side.s > 0 else -edge
        walls.append(WallLine(s, (-6.0, 90.0)))
        trees.append(TreeLine(s + 4.0 * np.sign(s), 1.8, 7.0, (5.0, 9.0)))
    if rng.random() < 0.45:
        s = (half + 0.9) * (1 if rng.random() < 0.5 else -1)
        trees.append(TreeLine(s, 0.1, rng.uniform(8, 14), (4.5, 7.5), (5.0, 60.0)))
    return Layout(
        Street("city", bands, yaw, camera_s, bend), tuple(houses), tuple(walls), tuple(trees),
        ((-edge + 0.5, -half - 0.5), (half + 0.5, edge - 0.5)),
        (-half - 0.45, half + 0.45), (-half, half), True,
    )  # fmt: skip


def _suburb(rng) -> Layout:
    half, walk = rng.uniform(2.7, 3.8), rng.uniform(1.7, 2.5)
    verge = float(rng.choice([0.0, 1.6]))
    edge = half + verge + walk
    camera_s, yaw = _view(rng, -edge, edge, 0.3)
    verges = ((-half, GRASS), (half, ROAD), (half + verge, GRASS)) if verge else ((half, ROAD),)
    bands = ((-edge, GRASS), (-half - verge, PAVEMENT), *verges, (edge, PAVEMENT), (np.inf, GRASS))
    bend = 0.0 if abs(yaw) > 0.8 or rng.random() < 0.3 else rng.uniform(-0.009, 0.009)
    houses, walls, trees = [], [], []
    for side in (-1, 1):
        back = edge + rng.uniform(4.0, 9.0)
        houses.append(HouseLine(side * back, side, False, (3.2, 6.2), 0.45))
        trees.append(TreeLine(side * (back - 2.5), 2.0, 11.0, (3.0, 7.5)))
        trees.append(TreeLine(side * (back + 14.0), 3.0, 8.0, (6.0, 11.0)))
        if rng.random() < 0.8:
            walls.append(WallLine(side * (edge + 0.25), (-6.0, 80.0), rng.random() < 0.3))
    return Layout(
        Street("suburb", bands, yaw, camera_s, bend), tuple(houses), tuple(walls), tuple(trees),
        ((-edge + 0.3, -half - verge - 0.3), (half + verge + 0.3, edge - 0.3)),
        (-half - 0.45, half + 0.45), (-half, half),
    )  # fmt: skip


def _park(rng) -> Layout:
    half = rng.uniform(1.2, 2.4)
    camera_s = rng.uniform(-6, 6)
    yaw = float(np.arctan2(-camera_s, 20.0) + rng.uniform(-0.2, 0.2))
    bands = ((-half, GRASS), (half, PAVEMENT), (np.inf, GRASS))
    side = 1 if rng.random() < 0.5 else -1
    ponds = ()
    if rng.random() < 0.5:
        width = rng.uniform(6, 14)
        ponds = ((side * (half + width + 2.0), rng.uniform(16, 30), width, rng.uniform(6, 13)),)
    trees = [
        TreeLine(-side * (half + 5.0), 3.0, 7.0, (5.0, 10.0)),
        TreeLine(side * 27.0, 5.0, 5.0, (6.0, 11.0), (4.0, 90.0)),
    ]
    trees.append(TreeLine(-side * 17.0, 5.0, 5.0, (6.0, 12.0), (4.0, 90.0)))
    walls = []
    if rng.random() < 0.75:
        walls.append(WallLine(-side * rng.uniform(6, 11), (-4.0, 70.0), rng.random() < 0.15))
    houses = [HouseLine(-side * 24.0, -side, True, (8.0, 15.0), 0.3)] if rng.random() < 0.4 else []
    street = Street("park", bands, yaw, camera_s, rng.uniform(-0.014, 0.014), ponds=ponds)
    walks = ((-half, half), (-half, half), (-half - 7, half + 7))
    return Layout(street, tuple(houses), tuple(walls), tuple(trees), walks, (-half - 0.4, half + 0.4))


def _lake(rng) -> Layout:
    """Lay out a promenade: water, a low wall, a walk, mostly a road, then houses or a park."""
    walk = rng.uniform(2.5, 5.0)
    has_road = rng.random() < 0.6
    half = rng.uniform(2.8, 3.6)
    shore = float(rng.choice([0.0, 3.0]))
    far_shore = -rng.uniform(26, 70)
    end = walk + (2 * half if has_road else 0.0)
    bands = [(far_shore, GRASS), (-shore, WATER), (0.0, GRASS), (walk, PAVEMENT)]
    if not shore:
        bands.pop(2)
    if has_road:
        bands += [(end, ROAD), (end + 2.2, PAVEMENT)]
    bands.append((np.inf, GRASS))
    looks_over_water = rng.random() < 0.45
    camera_s = rng.uniform(0.5, walk - 0.5) + (end * 0.6 if looks_over_water else 0.0)
    yaw = -rng.uniform(0.7, 1.5) if looks_over_water else -rng.uniform(0.0, 0.35)
    back = end + 2.6
    houses = [HouseLine(back + 1.0, 1, True, (7.0, 14.0), 0.15)] if has_road and rng.random() < 0.7 else []
    trees = [] if houses else [TreeLine(back + 5, 3.5, 6.0, (5.0, 10.0))]
    trees.append(TreeLine(far_shore - 4, 3.0, 4.5, (5.0, 11.0), (-40.0, 110.0)))
    if rng.random() < 0.5:
        houses.append(HouseLine(far_shore - 10, -1, False, (4.0, 9.0), 0.35, (-40.0, 100.0)))
    walls = [WallLine(-0.25, (-14.0, 80.0))] if not shore and rng.random() < 0.75 else []
    curb = (walk - 0.5,) if has_road else (0.5,)
    layout = Layout(
        Street("lake", tuple(bands), yaw, camera_s), tuple(houses), tuple(walls), tuple(trees),
        ((0.6, walk - 0.6),), curb, (walk, end) if has_road else None, bool(houses) and has_road,
    )  # fmt: skip
    return _flip(layout) if rng.random() < 0.5 else layout


def _canal(rng) -> Layout:
    half, walk = rng.uniform(3.0, 6.0), rng.uniform(2.2, 3.6)
    has_road = rng.random() < 0.4
    inner, road = half + walk, 5.2 if has_road else 0.0
    edge = inner + road
    bands = [(-inner, PAVEMENT), (-half, PAVEMENT), (half, WATER), (inner, PAVEMENT)]
    if has_road:
        bands += [(edge, ROAD), (edge + 2.0, PAVEMENT)]
    bands.append((np.inf, GRASS if rng.random() < 0.3 else PAVEMENT))
    if rng.random() < 0.3:  # from a bridge
        camera_s, yaw = rng.uniform(-half, half) * 0.7, rng.uniform(-0.2, 0.2)
    else:
        camera_s, yaw = half + 0.6 * walk, -rng.uniform(0.1, 1.3)
    back = edge + (2.0 if has_road else 0.0)
    houses = [HouseLine(-inner, -1, True, (7.0, 13.0), 0.1), HouseLine(back, 1, True, (7.0, 13.0), 0.15)]
    walls = [WallLine(-half - 0.2, (2.0, 80.0))] if rng.random() < 0.55 else []
    trees = [TreeLine(half + 0.9, 0.2, 11.0, (4.0, 7.0), (6.0, 60.0))] if rng.random() < 0.5 else []
    layout = Layout(
        Street("canal", tuple(bands), yaw, camera_s), tuple(houses), tuple(walls), tuple(trees),
        ((half + 0.5, inner - 0.4), (-inner + 0.4, -half - 0.7)), (half + 0.4, -half - 0.6),
        (inner, edge) if has_road else None, True,
    )  # fmt: skip
    return _flip(layout) if rng.random() < 0.5 else layout


def _flip(layout: Layout) -> Layout:
    """Swap left and right of a whole ground plan."""
    street = layout.street

    def swap(pairs):
        return tuple((-high, -low) for low, high in pairs)

    return Layout(
        Street(street.kind, _mirrored(street.bands), -street.yaw, -street.camera_s, -street.bend),
        tuple(replace(line, s=-line.s, side=-line.side) for line in layout.houses),
        tuple(replace(line, s=-line.s) for line in layout.walls),
        tuple(replace(line, s=-line.s) for line in layout.trees),
        swap(layout.walks), tuple(-s for s in layout.curbs),
        swap([layout.road])[0] if layout.road else None, layout.is_urban,
    )  # fmt: skip


_KINDS = {_city: 0.27, _suburb: 0.25, _park: 0.19, _lake: 0.15, _canal: 0.14}


def draw_layout(rng: np.random.Generator) -> Layout:
    """Draw a kind of place and its measures."""
    kinds = list(_KINDS)
    return kinds[int(rng.choice(len(kinds), p=list(_KINDS.values())))](rng)
