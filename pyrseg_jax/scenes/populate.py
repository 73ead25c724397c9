"""Fill a ground plan with houses, walls, trees, cars, people and street furniture."""

import numpy as np

from pyrseg_jax.scenes.buildings import paint_building
from pyrseg_jax.scenes.canvas import ellipse_corners
from pyrseg_jax.scenes.cars import car_corners, paint_car
from pyrseg_jax.scenes.classes import GRASS, PAVEMENT, ROAD, WATER
from pyrseg_jax.scenes.layout import HouseLine, TreeLine, WallLine
from pyrseg_jax.scenes.people import paint_person
from pyrseg_jax.scenes.solids import box_corners
from pyrseg_jax.scenes.stage import Stage
from pyrseg_jax.scenes.street_furniture import (
    paint_bollard,
    paint_clutter,
    paint_lamp_post,
    paint_sign_post,
    paint_traffic_light,
)
from pyrseg_jax.scenes.trees import SHAPES, paint_tree
from pyrseg_jax.scenes.walls import WALL_KINDS, paint_wall


def populate(stage: Stage) -> None:
    """Place all objects, large ones first."""
    for line in stage.layout.houses:
        _houses(stage, line)
    for line in stage.layout.walls:
        _wall(stage, line)
    if stage.layout.road:
        _cars(stage, *stage.layout.road)
    _furniture(stage)
    for line in stage.layout.trees:
        _trees(stage, line)
    _people(stage)


def _houses(stage: Stage, line: HouseLine) -> None:
    rng, street = stage.rng, stage.layout.street
    t = line.t_range[0] + rng.uniform(-3, 3)
    while t < line.t_range[1]:
        width = rng.uniform(7, 13) if line.is_urban else rng.uniform(7, 11)
        if rng.random() < line.gap_share:
            gap = rng.uniform(3, 6) if line.is_urban else rng.uniform(5, 10)
            if line.is_urban:
                _wall(stage, WallLine(line.s + 0.3 * line.side, (t, t + gap)))
                _tree(stage, line.s + 3.0 * line.side, t + gap / 2, rng.uniform(5, 9))
            t += gap
            continue
        depth = rng.uniform(6.5, 9.5)
        back = rng.uniform(0, 0.4) if line.is_urban else rng.uniform(0, 3)
        front = line.s + back * line.side
        base = box_corners(street, (front, front + depth * line.side), (t, t + width))
        height = rng.uniform(*line.height_m)
        if base[:, 2].max() > 1.0:
            middle = base.mean(axis=0)
            stage.add(middle, base[:, [0, 2]], height, paint_building, base, height, line.is_urban)
            for along in np.arange(t, t + width + 1, 3.0):
                stage.taken.append((front + depth / 2 * line.side, along, depth / 2))
        t += width


def _wall(stage: Stage, line: WallLine) -> None:
    rng, street = stage.rng, stage.layout.street
    kind = int(rng.integers(len(WALL_KINDS)))
    height = rng.uniform(*WALL_KINDS[kind][2])
    t, end = line.t_range
    gate = rng.uniform(4, 40)
    while t < end:
        length = min(5.0 if street.bend else 9.0, end - t)
        if line.is_hedge:
            _tree(stage, line.s, t, rng.uniform(1.3, 1.7), "bush")
            length = 1.5
        elif not gate < t < gate + 4.0:
            base = box_corners(street, (line.s - 0.17, line.s + 0.17), (t, t + length))
            if base[:, 2].max() > 1.0:
                stage.add(base.mean(axis=0), base[:, [0, 2]], height, paint_wall, base, height, kind)
        t += length


def _trees(stage: Stage, line: TreeLine) -> None:
    rng = stage.rng
    t = line.t_range[0] + rng.uniform(0, line.every_m)
    while t < line.t_range[1]:
        height = rng.uniform(*line.height_m)
        # Streets are planted with broad-leaved trees; elsewhere any kind may grow.
        shape = "round" if line.spread_m < 0.5 else None if rng.random() < 0.85 else "bush"
        _tree(stage, line.s + rng.uniform(-1, 1) * line.spread_m, t, 1.6 if shape == "bush" else height, shape)
        t += line.every_m * rng.uniform(0.7, 1.5)


def _tree(stage: Stage, s: float, t: float, height_m: float, shape: str | None = None) -> None:
    street = stage.layout.street
    foot = street.to_camera(s, t)
    is_bush = shape == "bush"
    if not stage.is_seen(foot, 2.5 if is_bush else 4.5, 95.0, 4.0):
        return
    if stage.ground_class(s, t) in (ROAD, WATER) or not stage.take(s, t, 0.7):
        return
    shape = shape or str(stage.rng.choice(list(SHAPES), p=[0.5, 0.24, 0.07, 0.19, 0.0]))
    radius = 0.4 * SHAPES[shape][0] * height_m
    crown = foot[[0, 2]] + radius * ellipse_corners(10)
    stage.add(foot, crown if is_bush else foot[[0, 2]] + 0.5 * radius * ellipse_corners(10), height_m * 0.8,
              paint_tree, foot, height_m, shape)  # fmt: skip


def _cars(stage: Stage, left: float, right: float) -> None:
    """Park cars along both curbs and let some drive on the right-hand side."""
    rng, street = stage.rng, stage.layout.street
    middle, half = (left + right) / 2, (right - left) / 2
    lanes = [(middle + half / 2, 1, rng.uniform(0.0, 0.3)), (middle - half / 2, -1, rng.uniform(0.0, 0.3))]
    if half > 3.2:
        crowd = rng.uniform(0.0, 0.9)
        lanes += [(right - 1.05, 1, crowd), (left + 1.05, -1, crowd * rng.uniform(0.3, 1.0))]
    for s, direction, density in lanes:
        t = rng.uniform(-12, -6)
        while t < 46:
            t += rng.uniform(5.4, 7.0)
            foot = street.to_camera(s, t)
            if rng.random() > density or not stage.is_seen(foot, 4.6, 40.0, 1.5):
                continue
            if not (stage.take(s, t - 1.3, 1.0) and stage.take(s, t + 1.3, 0.98)):
                continue
            forward = street.heading(t) * direction
            stage.add(foot, car_corners(foot, forward), 1.4, paint_car, foot, forward)


def _furniture(stage: Stage) -> None:
    """Set lamp posts, sign posts, traffic lights, bollards and clutter along the curbs."""
    rng = stage.rng
    for s in stage.layout.curbs:
        side = -1 if s > 0 else 1
        every, start = rng.uniform(9, 15), rng.uniform(2, 8)
        if rng.random() < 0.85:
            for t in np.arange(start - 14, 40, every):
                _upright(stage, s, t, (4.0, 27.0), 5.0, paint_lamp_post, side)
        for _ in range(int(rng.integers(1, 5))):
            _upright(stage, s + rng.uniform(-0.1, 0.1), rng.uniform(-10, 20), (3.2, 13.0), 2.6, paint_sign_post)
        if stage.layout.road and rng.random() < 0.3:
            _upright(stage, s, rng.uniform(4, 18), (4.0, 20.0), 3.6, paint_traffic_light)
        if rng.random() < 0.3:
            first = rng.uniform(-6, 10)
            for t in first + 1.8 * np.arange(int(rng.integers(3, 9))):
                _upright(stage, s, t, (3.0, 18.0), 1.0, paint_bollard)
    for low, high in stage.layout.walks:
        for _ in range(int(rng.integers(0, 3))):
            s = low - 0.1 if rng.random() < 0.5 else high + 0.1
            _upright(stage, s, rng.uniform(-8, 30), (4.0, 28.0), 1.0, paint_clutter)


def _upright(stage: Stage, s: float, t: float, depth_range, height_m: float, painter, *arguments) -> None:
    foot = stage.layout.street.to_camera(s, t)
    if not stage.is_seen(foot, *depth_range) or stage.ground_class(s, t) not in (PAVEMENT, GRASS):
        return
    if stage.take(s, t, 0.35):
        stage.add_round(foot, 0.14, height_m, painter, *arguments)


def _people(stage: Stage) -> None:
    """Let people walk alone or in small groups, and sometimes in a crowd."""
    rng, street = stage.rng, stage.layout.street
    num_groups = int(rng.choice([0, 2, 4, 7, 14], p=[0.14, 0.20, 0.26, 0.24, 0.16]))
    for _ in range(num_groups):
        low, high = stage.layout.walks[int(rng.integers(len(stage.layout.walks)))]
        if rng.random() < 0.08 and stage.layout.road:
            low, high = stage.layout.road
        depth = rng.uniform(4.0, 17.0)
        s = rng.uniform(low, high)
        # Choose the depth first. With a random place along the street, most people would be far away or outside the picture.
        t = _t_at_depth(street, s, depth, rng)
        for _ in range(int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))):
            foot = street.to_camera(s, t)
            is_dry = stage.ground_class(s, t) != WATER
            if is_dry and stage.is_seen(foot, 4.0, 34.0) and stage.take(s, t, 0.3):
                height = rng.uniform(1.5, 1.9) * (0.7 if rng.random() < 0.12 else 1.0)
                stage.add_round(foot, 0.22, height, paint_person, height)
            s += rng.uniform(0.65, 0.9) * (1 if rng.random() < 0.5 else -1)
            t += rng.uniform(-0.5, 0.5)
            s = float(np.clip(s, low, high))


def _t_at_depth(street, s: float, depth_m: float, rng) -> float:
    """Return a t for which (s, t) is about `depth_m` away; if the view goes across the street, anywhere in view."""
    if abs(np.cos(street.yaw)) > 0.7:
        return float((depth_m - (s - street.camera_s) * np.sin(street.yaw)) / np.cos(street.yaw))
    away = abs(s - street.camera_s)
    return float(rng.uniform(-0.7, 0.7) * away + away / max(np.tan(abs(street.yaw)), 0.2))
