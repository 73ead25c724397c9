"""How long a step will take on chips that are not there: what the compiler says of computing, and a model of sending."""

import math
from typing import NamedTuple

from pyrseg_jax.ahead_of_time.hardware import HOP_S, Chip
from pyrseg_jax.ahead_of_time.programs import Cost


class Estimate(NamedTuple):
    """One training step on a slice.

    Attributes:
      devices: of the slice.
      compute_s: the compiler's estimate of the instructions' cycles; where it gives none, arithmetic at the chip's peak.
      send_s: the collectives, one after another and none beside computing.
      images_per_second_per_device: from the sum of both.
    """

    devices: int
    compute_s: float
    send_s: float
    images_per_second_per_device: float

    @property
    def step_s(self) -> float:
        """Seconds of the whole step."""
        return self.compute_s + self.send_s


def estimate_step(
    cost: Cost, images_per_device: float, flops_per_image: float, chip: Chip, devices: int, sides: tuple[int, ...]
) -> Estimate:
    """Estimate a step on a slice of `devices` whose chips stand in a grid of `sides`.

    Chosen: an all-reduce sends nearly twice its bytes (once to add up, once to hand out) and crosses half of each side of
    the grid twice; the others send theirs once and cross it once.
    """
    if cost.cycles is not None and chip.clock_hz is not None:
        compute_s = cost.cycles / chip.clock_hz
    else:
        compute_s = images_per_device * flops_per_image / chip.flops
    hops = sum(side // 2 for side in sides)
    send_s = 0.0
    for kind, found in cost.collectives.items():
        ways = 2 if kind == "all-reduce" else 1
        send_s += ways * (found.bytes * (devices - 1) / devices / chip.link_bytes + found.count * hops * HOP_S)
    return Estimate(devices, compute_s, send_s, images_per_device / (compute_s + send_s))


def other_slices(sides: tuple[int, ...], devices: int) -> list[tuple[tuple[int, ...], int]]:
    """List slices from 4 to 256 chips in a grid of as many dimensions: their sides and numbers of devices."""
    per_chip = devices / math.prod(sides)
    grids = {
        2: [(2, 2), (4, 4), (8, 8), (16, 16)],
        3: [(2, 2, 1), (2, 2, 4), (4, 4, 4), (4, 8, 8)],
    }[len(sides)]
    return [(grid, round(per_chip * math.prod(grid))) for grid in grids]
