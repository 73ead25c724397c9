"""The keys `optimizer.*`."""

from typing import Annotated

from pyrseg_jax.run import choices
from pyrseg_jax.run.declare import OneOf, group, key


@group
class Optimizer:
    """How gradients change the parameters. The learning rate, its warm-up, momentum and weight decay are keys of `training`."""

    name: Annotated[str, OneOf(choices.optimizers)] = key("sgd", "Optimizer.")
    nesterov: bool | None = key(
        None, "Whether the momentum looks ahead (Nesterov). None: for `muon` yes, for `sgd` and `adamw` no."
    )
    beta1: float = key(0.9, "Decay of the first moment of Adam.", at_least=0, at_most=1)
    beta2: float = key(0.999, "Decay of the second moment of Adam.", at_least=0, at_most=1)
    epsilon: float = key(1e-8, "Number that Adam and Muon add to a divisor.", at_least=0)
    muon_momentum: float = key(0.95, "Decay of the momentum of Muon.", at_least=0, at_most=1)
    muon_steps: int = key(
        5, "Newton-Schulz iterations with which Muon orthogonalizes a matrix.", unit="iterations", at_least=1
    )
    muon_rms: float = key(
        0.2, "Root mean square of an update of Muon at a learning rate of 1. That of Adam is about 0.2.", at_least=0
    )
    schedule: Annotated[str, OneOf(choices.schedules)] = key(
        "poly", "Learning-rate schedule between the warm-up and the last step."
    )
    warmup_start: float | None = key(
        None,
        "Factor of the learning rate that the warm-up rises from. None: 0, and for `one_cycle` 1/25.",
        at_least=0,
        at_most=1,
    )
    final_factor: float = key(
        0.0, "Learning rate at the end as a multiple of the peak, for schedules that decay.", at_least=0, at_most=1
    )
    clip_norm: float | None = key(
        None,
        "Norm of the gradient of all parameters above which the gradient is scaled down to it. None or 0: never.",
        at_least=0,
    )
    layer_decay: float | None = key(
        None,
        "Factor of the learning rate from each layer of the backbone to the one before it. None: all layers learn alike.",
        at_least=0,
        at_most=1,
    )
    decay_mask: Annotated[str, OneOf(choices.decay_masks)] = key("all", "Parameters that weight decay touches.")
    ema: float | None = key(
        None,
        "Decay of an exponential moving average of the weights, which is then evaluated and exported instead of them. None: no "
        "average.",
        at_least=0,
        at_most=1,
    )
    freeze: str | None = key(
        None,
        "Parts of the network that stay as they are: patterns of paths of parameters, such as `backbone/*`, joined with commas. "
        "None: everything learns.",
    )
