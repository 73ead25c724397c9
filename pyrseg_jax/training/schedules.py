"""Learning-rate schedules: functions from the step to the learning rate of the backbone.

Every schedule is a decay times a linear warm-up. The warm-up takes W steps, numbered from 0, and its factor at a step is
start + (1 - start) · min(1, (step + 1) / W), so it reaches 1 at step W - 1. Without warm-up steps it is always 1.
"""

import math
from typing import Any

import jax.numpy as jnp
import optax

# The share of the training in which `one_cycle` rises, and the factor that it begins with, if no warm-up is given.
# Source: the defaults of PyTorch's OneCycleLR.
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25

SCHEDULES = {
    "poly": "(1 - step / steps)^poly_power, from the first step on; the warm-up multiplies it",
    "cosine": "after the warm-up, half a cosine from the peak to the end",
    "one_cycle": "a linear rise, which is the warm-up (30 % of the steps, from 1/25, unless set), and a linear fall",
    "constant": "after the warm-up, the peak",
}


def make_schedule(
    name: str,
    learning_rate: float,
    steps: int,
    *,
    power: float = 0.9,
    warmup_steps: int = 0,
    warmup_start: float | None = None,
    final_factor: float = 0.0,
) -> optax.Schedule:
    """Make one of `SCHEDULES`.

    Args:
      name: a key of `SCHEDULES`.
      learning_rate: the peak.
      steps: number of steps of the whole training.
      power: exponent of `poly`.
      warmup_steps: W; 0: no warm-up, and for `one_cycle` 30 % of the steps.
      warmup_start: factor that the warm-up rises from, 0 … 1; None: 0, and for `one_cycle` 1/25.
      final_factor: the learning rate after the last step as a multiple of the peak, 0 … 1; `constant` ignores it.

    Source: `poly` and its product with the warm-up: HRNet's code and MMSegmentation's `PolyLR`. `cosine`: Loshchilov & Hutter 2017,
      without restarts. `one_cycle`: Smith & Topin 2018.
    Differs: `one_cycle` leaves the momentum alone, and rises and falls in one line each.
    """
    is_one_cycle = name == "one_cycle"
    if is_one_cycle and not warmup_steps:
        warmup_steps = max(1, round(ONE_CYCLE_RISE * steps))
    if warmup_start is None:
        warmup_start = ONE_CYCLE_START if is_one_cycle else 0.0
    if name == "poly":
        return poly_schedule(learning_rate, steps, power, warmup_steps, warmup_start, final_factor)
    shape = {"cosine": _half_cosine, "one_cycle": _line, "constant": jnp.zeros_like}[name]
    num_falling = max(1, steps - warmup_steps)

    def schedule(step: Any) -> Any:
        done = jnp.clip((step - warmup_steps) / num_falling, 0.0, 1.0)
        rate = learning_rate * (1 - (1 - final_factor) * shape(done))
        return rate * _warm_up(step, warmup_steps, warmup_start)

    return schedule


def poly_schedule(
    learning_rate: float,
    steps: int,
    power: float = 0.9,
    warmup_steps: int = 0,
    warmup_start: float = 0.0,
    final_factor: float = 0.0,
) -> optax.Schedule:
    """Return the schedule step → learning_rate · (1 - step / steps)^power, with a linear warm-up.

    The warm-up multiplies the decay instead of preceding it. Both are functions of the step alone, and the schedule ends at the
    same step with and without a warm-up.

    Args:
      learning_rate: the rate at the start, before the warm-up factor.
      steps: number of steps of the whole training; the rate is the final one from there on.
      power: exponent of the decay.
      warmup_steps: number of steps until the factor reaches 1; 0: no warm-up.
      warmup_start: factor that the warm-up rises from, 0 … 1.
      final_factor: the final learning rate as a multiple of the first; the decay goes from 1 to this factor.
    """
    decay = optax.polynomial_schedule(learning_rate, final_factor * learning_rate, power, steps)
    if not warmup_steps:
        return decay
    return lambda step: decay(step) * _warm_up(step, warmup_steps, warmup_start)


def _warm_up(step: Any, num_steps: int, start: float) -> Any:
    if not num_steps:
        return 1.0
    factor = jnp.minimum(1.0, (step + 1) / num_steps)
    return factor if not start else start + (1 - start) * factor


def _half_cosine(done: Any) -> Any:
    """Return the share of the way down, 0 … 1, where the share `done` of the steps is done."""
    return (1 - jnp.cos(math.pi * done)) / 2


def _line(done: Any) -> Any:
    return done
