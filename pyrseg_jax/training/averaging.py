"""Exponential moving averages of a network's variables, which often predict better than the variables of any single step."""

from typing import Any

import jax
import jax.numpy as jnp

# The average after n steps forgets at least 9 / (10 + n) of itself, so the first steps, from weights that were hardly trained, do
# not stay in it. Source: the `num_updates` of TensorFlow's ExponentialMovingAverage.
WARM_UP = 9, 10


def begin_average(variables: dict) -> dict:
    """Return the average before the first step: a copy of the variables."""
    return jax.tree.map(jnp.copy, variables)


def move_average(average: dict, variables: dict, step: Any, decay: float) -> dict:
    """Move an average towards the variables after a step.

    Args:
      average: the average so far, a tree like the variables.
      variables: parameters and batch statistics after the step, float32.
      step: n, the number of steps before this one.
      decay: what the average keeps of itself in each step, 0 … 1, after its warm-up.

    Returns:
      average + share · (variables - average), where share is the larger one of 1 - decay and 9 / (10 + n). This form, unlike a
      weighted sum of both, leaves an average that equals its variable as it is.
    """
    share = jnp.maximum(1 - decay, WARM_UP[0] / (WARM_UP[1] + step))
    return jax.tree.map(lambda old, new: old + share.astype(old.dtype) * (new - old), average, variables)
