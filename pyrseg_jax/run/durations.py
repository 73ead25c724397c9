"""Durations in steps or epochs. They are converted to steps in one place, as soon as the size of the data set is known."""

import math
import re
from fractions import Fraction
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

EPOCHS = re.compile(r"(\d+(?:\.\d+)?) *epochs?")
STEPS = re.compile(r"(\d+) *steps?")


class Duration:
    """Annotation of a key that holds a number of steps, or until the conversion a text such as "120 epochs".

    The text stays in the configuration until `run.config.resolve_durations` replaces it. All code below `commands/` may rely
    on integers.

    Args:
      at_least: the smallest number of steps; if it is at least 1, a number of epochs must be more than 0.
      can_be_none: whether None is allowed.
    """

    def __init__(self, at_least: int, can_be_none: bool = False):
        self.at_least, self.can_be_none = at_least, can_be_none

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        kinds: list[dict[str, Any]] = [
            {"type": "integer", "minimum": self.at_least},
            {"type": "string", "pattern": f"^({EPOCHS.pattern}|{STEPS.pattern})$"},
        ]
        return {"anyOf": [*kinds, {"type": "null"}] if self.can_be_none else kinds}

    def _check(self, value: Any) -> int | str | None:
        if value is None and self.can_be_none:
            return None
        if isinstance(value, str) and (steps := STEPS.fullmatch(value.strip())):
            value = int(steps[1])
        if isinstance(value, int) and not isinstance(value, bool):
            if value < self.at_least:
                raise PydanticCustomError("duration", "expected at least {least}", {"least": self.at_least})
            return value
        if isinstance(value, str) and (epochs := EPOCHS.fullmatch(value.strip())):
            if self.at_least and not float(epochs[1]):
                raise PydanticCustomError("duration", "expected more than 0 epochs")
            return f"{epochs[1]} epochs"
        raise PydanticCustomError(
            "duration",
            "expected int, a number of steps, or a text such as '2 epochs', found {kind}",
            {"kind": type(value).__name__},
        )


def steps_of(text: str, num_images: int, batch_size: int) -> int:
    """Turn a text such as "120 epochs" into steps.

    One epoch is num_images / batch_size steps, a fraction in general. The product is rounded up, so that the images are
    seen at least as often as asked for: 120 epochs of 20,210 images in batches of 16 are 151,575 steps.
    """
    found = EPOCHS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a number of epochs")
    return math.ceil(Fraction(found[1]) * num_images / batch_size)
