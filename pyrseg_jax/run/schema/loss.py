"""The keys `loss.*`."""

from typing import Annotated

from pydantic import BeforeValidator

from pyrseg_jax.run.declare import group, key


def _join_numbers(value: object) -> object:
    """Turn the numbers of a config file into the text that a command line has; anything else stays as it is."""
    is_numbers = isinstance(value, tuple | list) and all(type(x) in (int, float) for x in value)
    return ", ".join(map(repr, value)) if is_numbers and value else value  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]


@group
class Loss:
    """What is learned from each cell or pixel, and with which weight. The defaults are the paper's loss."""

    cross_entropy: float = key(1.0, "Weight of the cross entropy.", at_least=0)
    focal: float = key(0.0, "Weight of the focal loss.", at_least=0)
    focal_gamma: float = key(2.0, "Exponent γ of the focal loss.", at_least=0)
    dice: float = key(0.0, "Weight of the Dice loss.", at_least=0)
    lovasz: float = key(0.0, "Weight of the Lovász-softmax loss.", at_least=0)
    boundary: float = key(
        0.0, "Weight of the boundary loss: the cross entropy near borders, at the finest level.", at_least=0
    )
    boundary_px: int = key(8, "Distance from a border within which the boundary loss learns.", unit="px", at_least=1)
    label_smoothing: float = key(
        0.0,
        "Share of the target that cross entropy and boundary loss spread evenly over all classes.",
        at_least=0,
        at_most=1,
    )
    class_weights: Annotated[str | None, BeforeValidator(_join_numbers)] = key(
        None,
        "Weights of the classes in cross entropy, focal and boundary loss: `inverse_frequency`, `inverse_log` or "
        "`effective_number` computes them from the training split; otherwise one number per class, or the path of a text file with "
        "these numbers.",
    )
    effective_beta: float = key(
        0.999, "Value of β in `effective_number`. Toward 1, the weights approach 1 / images.", at_least=0, at_most=1
    )
    unity: float = key(1.0, "For a pyramid: weight of the loss of the unity pyramid.", at_least=0)
    unity_gamma: float = key(
        0.0,
        "For a pyramid: exponent γ of a focal loss of the unity pyramid. 0 is binary cross entropy.",
        at_least=0,
    )
