"""SGD with momentum and a polynomial learning-rate schedule, as in the published HRNet recipes."""

import functools
from collections.abc import Collection, Hashable

import jax
import jax.numpy as jnp
import optax


def poly_schedule(learning_rate: float, steps: int, power: float = 0.9, warmup_steps: int = 0) -> optax.Schedule:
    """Return the schedule step → learning_rate · (1 - step / steps)^power, with a linear warm-up.

    The warm-up multiplies the decay instead of preceding it. Both are functions of the step alone, and the schedule ends at
    zero at the same step with and without a warm-up.

    Args:
      learning_rate: the rate at the start, before the warm-up factor.
      steps: number of steps of the whole training; the rate is zero from there on.
      power: exponent of the decay.
      warmup_steps: number of steps until the factor reaches 1; 0: no warm-up.
    """
    decay = optax.polynomial_schedule(learning_rate, 0.0, power, steps)
    if not warmup_steps:
        return decay
    return lambda step: decay(step) * jnp.minimum(1.0, (step + 1) / warmup_steps)


def make_sgd(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    head_multiplier: float,
    frozen: Collection[str] = (),
) -> optax.GradientTransformation:
    """Make SGD with momentum and weight decay on all parameters.

    As in PyTorch's SGD, weight decay is added to the gradient before the momentum ("coupled"), not subtracted from the
    weights separately.

    Args:
      schedule: step → learning rate of the backbone.
      momentum: decay of the running sum of gradients, 0 … 1.
      weight_decay: factor on the parameters that are added to their gradient.
      head_multiplier: multiple of the schedule at which all parameters outside the backbone learn.
      frozen: paths of layers, joined by "/", that stay as they are.
    """

    def sgd(multiplier: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.sgd(lambda step: multiplier * schedule(step), momentum=momentum),
        )

    parts: dict[Hashable, optax.GradientTransformation] = {"backbone": sgd(1.0), "head": sgd(head_multiplier)}
    if frozen:
        parts["frozen"] = optax.set_to_zero()
    return optax.partition(parts, functools.partial(_label_parts, frozen=frozen))


def _label_parts(params: dict, frozen: Collection[str]) -> dict:
    """Label each parameter with the part of the network whose learning rate it gets, or with "frozen"."""

    def part_of(path: tuple, _) -> str:
        if "/".join(entry.key for entry in path[:-1]) in frozen:
            return "frozen"
        return "backbone" if path[0].key == "backbone" else "head"

    return jax.tree_util.tree_map_with_path(part_of, params)
