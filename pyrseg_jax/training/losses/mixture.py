"""A weighted sum of losses over the levels of a prediction."""

import dataclasses
from collections.abc import Mapping, Sequence

from jaxtyping import Float

from pyrseg_jax.pyramid.levels import Array
from pyrseg_jax.training.losses.registry import LOSSES, LevelTargets, LossSettings

PLAIN = {"cross_entropy": 1.0}


@dataclasses.dataclass(frozen=True)
class SemanticLosses:
    """The losses of class predictions, each averaged over the levels that have it, and then added up by weight.

    Attributes:
      weights: weights by name; the names are keys of `LOSSES`. Losses of weight 0 are not computed.
      settings: the numbers that the losses read.

    Raises:
      ValueError: for an unknown name, a negative weight, or if no weight is positive.
    """

    weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: PLAIN, hash=False)  # a dict has no hash
    settings: LossSettings = LossSettings()

    def __post_init__(self) -> None:
        unknown = [name for name in self.weights if name not in LOSSES]
        if unknown:
            raise ValueError(f"weights: {unknown[0]!r} is not a loss: expected some of {', '.join(LOSSES)}")
        negative = {name: weight for name, weight in self.weights.items() if weight < 0}
        if negative or not any(self.weights.values()):
            raise ValueError(f"weights={dict(self.weights)}: expected none below 0, and at least one above")

    @property
    def is_plain(self) -> bool:
        """Whether this is the cross entropy of the paper: without other losses, class weights or label smoothing."""
        settings = self.settings
        return self._used() == PLAIN and settings.class_weights is None and not settings.label_smoothing

    def __call__(self, levels: Sequence[LevelTargets]) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Return the loss, and its terms by name.

        Args:
          levels: the levels of a prediction, coarse → fine.

        Returns:
          The loss; and as terms `semantic`, which is the loss; with several levels, `semantic_1` … `semantic_L`, the weighted sum
          of the losses of each level; and, unless the cross entropy is the only loss, each loss by its own name without its weight.
        """
        used, finest = self._used(), len(levels) - 1
        values = {
            name: {
                i: LOSSES[name].compute(level, self.settings) for i, level in enumerate(levels) if _has(name, i, finest)
            }
            for name in used
        }
        means: dict[str, Array] = {
            name: _add(list(of_levels.values())) / len(of_levels) for name, of_levels in values.items()
        }
        loss = _add([_times(used[name], mean) for name, mean in means.items()])
        terms: dict[str, Array] = {"semantic": loss}
        if finest:
            for i in range(len(levels)):
                parts = [_times(used[name], of_levels[i]) for name, of_levels in values.items() if i in of_levels]
                terms |= {f"semantic_{i + 1}": _add(parts)} if parts else {}
        return loss, terms | (means if means.keys() != PLAIN.keys() else {})

    def _used(self) -> dict[str, float]:
        return {name: weight for name, weight in self.weights.items() if weight}


def _has(name: str, level: int, finest: int) -> bool:
    return level == finest or LOSSES[name].is_on_all_levels


def _add(values: Sequence[Array]) -> Array:
    return sum(values[1:], values[0])


def _times(weight: float, value: Array) -> Array:
    return (
        value if weight == 1 else weight * value
    )  # without a multiplication, the paper's loss stays the same to the last bit
