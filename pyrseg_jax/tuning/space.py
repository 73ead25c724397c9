"""The space of a search: which keys vary, and over which values, as `--vary=KEY=VALUES` says."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import keys
from pyrseg_jax.run.config import Config

FORMS = "expected KEY=LOW:HIGH, KEY=log:LOW:HIGH or KEY=A|B|C"
# Keys that change what is scored. Scores of trials that differ in them could not be compared.
SCORED = (
    "data.name", "data.root", "data.prepared", "data.first_value", "data.void_value", "data.remap", "data.on_error",
    "data.holdout", "data.holdout_seed", "data.folds", "data.fold", "training.best_metric", "evaluation.split",
)  # fmt: skip
# The validation loss is the main term of the objective, so these change what it measures.
SCORED_AS_LOSS = (
    "model.representation", "model.strides", "training.procedure", "training.threshold", "training.void", "training.supervision",
)  # fmt: skip

Parameter: TypeAlias = int | float | str  # a number of a range, or the text of a choice
Parameters: TypeAlias = Mapping[str, Parameter]  # by key


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included; integers if both are.

    Attributes:
      is_log: whether the logarithm is spread evenly, and not the number itself.
    """

    low: float
    high: float
    is_log: bool = False

    @property
    def text(self) -> str:
        """Return the values as `--vary` takes them."""
        return f"{'log:' if self.is_log else ''}{self.low!r}:{self.high!r}"

    @property
    def is_integer(self) -> bool:
        """Return whether the values are integers."""
        return isinstance(self.low, int)

    def examples(self) -> tuple[Parameter, ...]:
        """Return the values to try against the schema."""
        return self.low, self.high

    def find(self, about: keys.Key, value: Any) -> Parameter | None:
        """Return the parameter that stands for a value of the key, or None if the value is outside."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if is_number and self.low <= value <= self.high else None


@dataclasses.dataclass(frozen=True)
class Choices:
    """Some values, each given by its text."""

    texts: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the values as `--vary` takes them."""
        return "|".join(self.texts)

    def examples(self) -> tuple[Parameter, ...]:
        """Return the values to try against the schema."""
        return self.texts

    def find(self, about: keys.Key, value: Any) -> Parameter | None:
        """Return the text that stands for a value of the key, or None if there is none."""
        return next((text for text in self.texts if keys.parse_text(about, text) == value), None)


Values: TypeAlias = Range | Choices
Space: TypeAlias = Mapping[str, Values]


def parse_space(texts: Sequence[str]) -> dict[str, Values]:
    """Read the values of `--vary`, for example `training.learning_rate=log:0.01:0.3`.

    Returns:
      The values by key, ordered by key, so that the order on the command line does not matter.

    Raises:
      UserError: naming the text, if it has another form or names no key, or a key occurs twice.
    """
    found: dict[str, Values] = {}
    for text in texts:
        name, has_values, values = text.partition("=")
        name = name.strip().removeprefix("config.")
        if not has_values:
            raise UserError(f"--vary={text}: {FORMS}")
        about = keys.keys_of(config_lib.Config).get(name)
        if about is None:
            raise UserError(f"--vary={text}: {config_lib.unknown_key(name)}")
        if name in found:
            raise UserError(f"--vary={text}: {name} is varied twice; give all of its values at once")
        found[name] = _parse_values(about, values, text)
    return dict(sorted(found.items()))


def _parse_values(about: keys.Key, values: str, text: str) -> Values:
    if "|" in values:
        return _parse_choices(about, values, text)
    is_log = values.startswith("log:")
    bounds = values.removeprefix("log:").split(":")
    if about.type not in (int, float):
        raise UserError(
            f"--vary={text}: {about.name} takes {about.describe_values()}, and no range of numbers: expected KEY=A|B|C"
        )
    if len(bounds) != 2:
        raise UserError(f"--vary={text}: {FORMS}")
    try:
        low, high = map(about.type, bounds)
    except ValueError as error:
        kind = "integers" if about.type is int else "numbers"
        raise UserError(f"--vary={text}: expected two {kind} LOW:HIGH for {about.name}") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--vary={text}: expected LOW:HIGH with LOW below HIGH")
    if is_log and low <= 0:
        raise UserError(f"--vary={text}: expected log:LOW:HIGH with LOW above 0, because 0 has no logarithm")
    return Range(low, high, is_log)


def _parse_choices(about: keys.Key, values: str, text: str) -> Choices:
    texts = tuple(part.strip() for part in values.split("|"))
    parsed = [keys.parse_text(about, part) for part in texts]
    if not all(texts) or any(value in parsed[:i] for i, value in enumerate(parsed)):
        raise UserError(f"--vary={text}: expected different values KEY=A|B|C")
    return Choices(texts)


def changes_of(parameters: Parameters) -> dict[str, Any]:
    """Return the values of the keys that parameters stand for, by key."""
    known = keys.keys_of(config_lib.Config)
    return {
        name: keys.parse_text(known[name], value) if isinstance(value, str) else value
        for name, value in parameters.items()
    }


def check_space(space: Space, config: Config, resolve: Callable[[Mapping[str, Any]], Config]) -> None:
    """Try every bound and every choice against the schema, with the other keys as in the config.

    Args:
      space: the values by key.
      config: the configuration that the trials start from.
      resolve: changes by key → the configuration with these changes.

    Raises:
      UserError: naming the value, if it is refused, or if a key changes what is scored.
    """
    for name, values in space.items():
        of_loss = config.training.best_metric == "loss" and (name.startswith("loss.") or name in SCORED_AS_LOSS)
        if name in SCORED or of_loss:
            reason = "the validation loss" if of_loss else "what is scored"
            raise UserError(
                f"--vary={name}={values.text}: this key changes {reason}, so that scores of trials could not be compared; vary "
                "another key" + (", or choose another config.training.best_metric" if of_loss else "")
            )
        for example in values.examples():
            try:
                resolve(changes_of({name: example}))
            except UserError as error:
                raise UserError(f"--vary={name}={values.text}: {error}") from error


def parameters_of(config: Config, space: Space) -> dict[str, Parameter] | None:
    """Return the parameters that stand for the values of a config; None if one of these is outside of the space."""
    known = keys.keys_of(Config)
    found = {name: values.find(known[name], keys.value_of(config, name)) for name, values in space.items()}
    return None if None in found.values() else {name: value for name, value in found.items() if value is not None}
