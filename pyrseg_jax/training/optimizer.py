"""SGD with momentum as in the published HRNet recipes."""

import jax
import optax


def poly_schedule(learning_rate: float, steps: int, power: float = 0.9, warmup_steps: int = 0) -> optax.Schedule:
    """Return step → learning_rate · (1 - step / steps)^power, times a linear warm-up over the first `warmup_steps`.

    The warm-up multiplies the decay, so that both are functions of the step alone and the end stays where it was.
    """
    decay = optax.polynomial_schedule(learning_rate, 0.0, power, steps)
    if not warmup_steps:
        return decay
    return lambda step: decay(step) * jax.numpy.minimum(1.0, (step + 1) / warmup_steps)


def make_sgd(
    schedule: optax.Schedule, *, momentum: float, weight_decay: float, head_multiplier: float
) -> optax.GradientTransformation:
    """Make SGD with momentum and weight decay on all parameters.

    The decay is added to the gradient before the momentum (PyTorch's SGD), not applied to the weights apart from it.

    Args:
      schedule: step → learning rate of the backbone.
      momentum: of the gradients' running sum.
      weight_decay: times the parameters is added to their gradient.
      head_multiplier: everything but the backbone learns at this multiple of the schedule.
    """

    def sgd(multiplier: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.sgd(lambda step: multiplier * schedule(step), momentum=momentum),
        )

    return optax.partition({"backbone": sgd(1.0), "head": sgd(head_multiplier)}, _parts)


def _parts(params: dict) -> dict:
    def part_of(path: tuple, _) -> str:
        return "backbone" if path[0].key == "backbone" else "head"

    return jax.tree_util.tree_map_with_path(part_of, params)
