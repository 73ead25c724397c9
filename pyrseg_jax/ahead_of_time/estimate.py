"""Estimate the time of a step on accelerators that are not there, from the compiler's cycles and a model of communication."""

import math
from typing import NamedTuple

from pyrseg_jax.ahead_of_time.hardware import HOP_S, Accelerator
from pyrseg_jax.ahead_of_time.hlo_text import Cost


class Estimate(NamedTuple):
    """The estimate for one training step on a slice.

    Attributes:
      devices: number of devices in the slice.
      compute_s: seconds of computation, from the compiler's cycles; from the peak FLOPs where it gives no cycles.
      send_s: seconds of communication, as if the collectives ran one after another and never beside the computation.
      images_per_second_per_device: rate that follows from the sum of both.
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
    cost: Cost,
    images_per_device: float,
    flops_per_image: float,
    accelerator: Accelerator,
    devices: int,
    sides: tuple[int, ...],
) -> Estimate:
    """Estimate a training step on a slice.

    Args:
      cost: cycles and communication of the compiled step on one device.
      images_per_device: batch size divided by the number of devices.
      flops_per_image: FLOPs of a step per image; used where the cycles or the clock rate are not known.
      accelerator: memory and speed of one device.
      devices: number of devices in the slice.
      sides: the grid that the chips are arranged in, in chips per side.

    Chosen: an all-reduce sends nearly twice its bytes (one pass adds up, one hands out the sums) and crosses half of each
    side of the grid twice; every other collective sends its bytes once and crosses the grid once.
    """
    if cost.cycles is not None and accelerator.clock_hz is not None:
        compute_s = cost.cycles / accelerator.clock_hz
    else:
        compute_s = images_per_device * flops_per_image / accelerator.flops_per_s
    hops = sum(side // 2 for side in sides)
    send_s = 0.0
    for kind, found in cost.collectives.items():
        passes = 2 if kind == "all-reduce" else 1
        bytes_s = found.bytes * (devices - 1) / devices / accelerator.link_bytes_per_s
        send_s += passes * (bytes_s + found.count * hops * HOP_S)
    return Estimate(devices, compute_s, send_s, images_per_device / (compute_s + send_s))


def other_slices(sides: tuple[int, ...], devices: int) -> list[tuple[tuple[int, ...], int]]:
    """List slices of 4 to 256 chips, in a grid with as many dimensions as `sides`.

    Args:
      sides: the grid of the slice that is compiled for, in chips per side.
      devices: number of devices in that slice; other slices have as many devices per chip.

    Returns:
      The grid of each slice, and its number of devices.
    """
    per_chip = devices / math.prod(sides)
    grids = {
        2: [(2, 2), (4, 4), (8, 8), (16, 16)],
        3: [(2, 2, 1), (2, 2, 4), (4, 4, 4), (4, 8, 8)],
    }[len(sides)]
    return [(grid, round(per_chip * math.prod(grid))) for grid in grids]
