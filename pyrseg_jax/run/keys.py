"""Describe, compare and read configuration keys, from what `schema/` declares."""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from pyrseg_jax.run.declare import OneOf
from pyrseg_jax.run.durations import Duration


@dataclasses.dataclass(frozen=True)
class Key:
    """The declaration of one key.

    Attributes:
      name: the full name, for example `training.batch_size`.
      type: the type of the values other than None.
      can_be_none: whether None is allowed.
      default, description, unit, minimum, maximum, is_resumable, since: see `declare.key`.
      one_of: the choices of a text key, if it has any.
      is_duration: whether a number of epochs may be given.
    """

    name: str
    type: type
    can_be_none: bool
    default: Any
    description: str
    unit: str | None
    minimum: float | None
    maximum: float | None
    one_of: OneOf | None
    is_duration: bool
    is_resumable: bool
    since: str

    def describe_values(self) -> str:
        """Describe the allowed values, for example `a number, 0 … 1, or None`."""
        kinds = {int: "an integer", float: "a number", bool: "true or false", str: "text", tuple: "integers"}
        words = kinds[self.type]
        if self.one_of is not None:
            words = "one of " + ", ".join(f"`{name}`" for name in choices_of(self))
        if self.minimum is not None and self.maximum is not None:
            words += f", {self.minimum:.12g} … {self.maximum:.12g}"
        elif self.minimum is not None:
            words += f", at least {self.minimum:.12g}"
        if self.is_duration:
            words = f"{words} (steps), or text such as '2 epochs'"
        return words + (", or None" if self.can_be_none else "")


def choices_of(about: Key) -> Mapping[str, str]:
    """Return the choices of a key with their meanings; empty for a key that has no choices."""
    return about.one_of.choices() if about.one_of is not None else {}


def keys_of(cls: Any, prefix: str = "") -> dict[str, Key]:
    """Return the keys of a group, and of the groups inside it, by their full names."""
    return dict(_keys_of(cls, prefix))


@functools.cache  # describing all keys takes milliseconds, and a command asks hundreds of times
def _keys_of(cls: Any, prefix: str) -> dict[str, Key]:
    found = {}
    for name, field in cls.__pydantic_fields__.items():
        full = f"{prefix}{name}"
        if is_group(field.annotation):
            found |= keys_of(field.annotation, f"{full}.")
        elif field.description is not None:
            found[full] = _describe(full, field)
    return found


def is_group(kind: Any) -> bool:
    """Return whether a type, or the type of a value, is a group of keys."""
    return hasattr(kind, "__pydantic_fields__")


def _describe(name: str, field: Any) -> Key:
    """Describe a key from pydantic's field."""
    plain = [k for k in typing.get_args(field.annotation) if k is not type(None)]
    is_optional = typing.get_origin(field.annotation) in (types.UnionType, typing.Union)
    kind = plain[0] if is_optional else field.annotation
    steps = next((m for m in field.metadata if isinstance(m, Duration)), None)
    return Key(
        name=name,
        type=typing.get_origin(kind) or kind,
        can_be_none=is_optional,
        default=field.default,
        description=field.description,
        unit=field.json_schema_extra["unit"],
        minimum=steps.at_least if steps else next((m.ge for m in field.metadata if hasattr(m, "ge")), None),
        maximum=next((m.le for m in field.metadata if hasattr(m, "le")), None),
        one_of=next((m for m in field.metadata if isinstance(m, OneOf)), None),
        is_duration=steps is not None,
        is_resumable=field.json_schema_extra["resumable"],
        since=field.json_schema_extra["since"],
    )


def group_names(cls: Any) -> list[str]:
    """Return the names of the groups inside a group."""
    return [name for name, field in cls.__pydantic_fields__.items() if is_group(field.annotation)]


def value_of(values: Any, name: str) -> Any:
    """Return the value of a key by its full name, for example `training.steps`."""
    for part in name.split("."):
        values = getattr(values, part)
    return values


def to_config_dict(values: Any) -> ml_collections.ConfigDict:
    """Turn a group of keys back into a `ConfigDict`, which config files change.

    It accepts any value for any key, because the schema checks all of them later, with better messages.
    """
    result = ml_collections.ConfigDict(type_safe=False)
    for name, field in type(values).__pydantic_fields__.items():
        if is_group(field.annotation):
            result[name] = to_config_dict(getattr(values, name))
        elif field.description is not None:
            result[name] = getattr(values, name)
    return result


def differences(old: Any, new: Any) -> list[str]:
    """List the differences of two configurations as `config.KEY: old → new`, without resumable keys.

    A duration in epochs is left out, too, as long as its steps are unknown: compare again after `resolve_durations`.
    """
    found = []
    for name, about in keys_of(type(old)).items():
        before, after = value_of(old, name), value_of(new, name)
        if before != after and not about.is_resumable and not (about.is_duration and isinstance(after, str)):
            found.append(f"config.{name}: {before!r} → {after!r}")
    return found


def parse_text(about: Key, text: str) -> Any:
    """Read a key's value from a command line, by the key's type.

    Text that is not such a value is returned unchanged: the schema then says what was expected.
    """
    if about.can_be_none and text in ("None", "none"):
        return None
    try:
        return _READERS[about.type](text)
    except (ValueError, KeyError):
        return text


def to_text(value: Any) -> str:
    """Write a key's value as a command line takes it; `parse_text` reads it back."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return repr(value) if isinstance(value, float) else str(value)


def _read_numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.strip("()[] ").split(",") if part.strip())


_READERS: Mapping[type, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()],
    int: int,
    float: float,
    str: str,
    tuple: _read_numbers,
}
