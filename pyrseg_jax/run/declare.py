"""Declare groups of configuration keys: `schema/` lists the keys with these functions."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, dataclass_transform

import pydantic
import pydantic.dataclasses
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

FIRST_VERSION = "0.1"
# Number of names up to which an error lists all of them.
MAX_LISTED = 20
C = TypeVar("C")


@dataclass_transform(frozen_default=True)
def group(cls: type[C]) -> type[C]:
    """Make a class a group of keys: a frozen dataclass whose values pydantic checks, and that accepts no other key.

    It is a dataclass instead of a `BaseModel`, so that `dataclasses.replace` works on it and checks the values again.
    """
    checked = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    return pydantic.dataclasses.dataclass(frozen=True, config=checked)(cls)  # pyright: ignore[reportReturnType]  # the same class


def key(
    default: Any,
    description: str,
    *,
    unit: str | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    resumable: bool = False,
    is_tuple: bool = False,
    since: str = FIRST_VERSION,
) -> Any:
    """Declare a key of a group.

    Args:
      default: the value if a config file does not set the key.
      description: the meaning, in one or two sentences.
      unit: the unit of the value, for example "px".
      at_least, at_most: the range of a number.
      resumable: whether the key may change when a run resumes. Such keys are not meant to change what is learned.
      is_tuple: whether the value may be a tuple although the default is none.
      since: the version of the package that added the key.
    """
    # Strict: true is not the number 1. A tuple stays lax, so that JSON's lists are accepted; its items are strict.
    strict = None if is_tuple or isinstance(default, tuple) else True
    extra = {"unit": unit, "resumable": resumable, "since": since}
    return pydantic.Field(
        default, description=description, ge=at_least, le=at_most, strict=strict, json_schema_extra=extra
    )


def duration(default: int | None, description: str, *, resumable: bool = False, since: str = FIRST_VERSION) -> Any:
    """Declare a key whose annotation carries a `Duration`, which checks the value itself; arguments as for `key`."""
    extra = {"unit": "steps, or epochs as in '2 epochs'", "resumable": resumable, "since": since}
    return pydantic.Field(default, description=description, json_schema_extra=extra)


class OneOf:
    """Annotation of a text key that must be one of several names.

    Args:
      choices: a function that returns the names with their meanings. It is not called before a value is checked or described:
        importing the networks only for their names would make every `--help` slow, and tests may add names while they run.
    """

    def __init__(self, choices: Callable[[], Mapping[str, str]]):
        self.choices = choices

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        described = handler(schema)
        can_be_none = any(kind.get("type") == "null" for kind in described.get("anyOf", ()))
        return described | {"enum": [*self.choices(), None] if can_be_none else list(self.choices())}

    def _check(self, value: str | None) -> str | None:
        names = tuple(self.choices())
        if value is not None and value not in names:  # whether None is allowed, the key's type has decided already
            if len(names) <= MAX_LISTED:
                raise PydanticCustomError("one_of", "expected one of {names}", {"names": ", ".join(names)})
            near = difflib.get_close_matches(value, names, 3, 0.5) or names[:3]
            shown = {"number": len(names), "names": ", ".join(near)}
            raise PydanticCustomError("one_of_many", "expected one of {number} names, such as {names}", shown)
        return value
