"""Groups of configuration keys as frozen dataclasses: declaring, reading and comparing them. `config.py` declares them."""

import dataclasses
import difflib
import types
import typing
from typing import Any

import ml_collections

from pyrseg_jax.errors import UserError


def one_of(*choices: str) -> dict:
    """Require a key's value to be one of these."""
    return {"choices": choices}


def at_least(minimum: float) -> dict:
    """Require a key's value to be this or more."""
    return {"minimum": minimum}


def key(default: Any, check: dict | None = None, *, free: bool = False):
    """Declare a key; `free` ones may differ between the parts of one run (they change no number that it computes)."""
    return dataclasses.field(default=default, metadata={**(check or {}), "free": free})


def differences(old: Any, new: Any, prefix: str = "config") -> list[str]:
    """List as `key: old → new` where two configurations, or groups of keys, differ; free keys do not count."""
    found = []
    for field in dataclasses.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        name = f"{prefix}.{field.name}"
        if dataclasses.is_dataclass(before):
            found += differences(before, after, name)
        elif before != after and not field.metadata["free"]:
            found.append(f"{name}: {before!r} → {after!r}")
    return found


def to_config_dict(values: Any) -> ml_collections.ConfigDict:
    """Turn dataclasses back into the `ConfigDict` that flags can change."""
    result = ml_collections.ConfigDict()
    types_of = typing.get_type_hints(type(values))
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            value = to_config_dict(value)
        elif value is None:  # so that a flag knows what type to read
            value = ml_collections.config_dict.placeholder(_plain_type(types_of[field.name]))
        result[field.name] = value
    return result


def read(cls: type, values: Any, prefix: str) -> Any:
    """Read a `ConfigDict` into a group of keys, and the groups inside of it.

    Raises:
      UserError: naming the key, for one that does not exist (with the nearest that does), or a value of the wrong type or
        outside its range.
    """
    if not hasattr(values, "keys"):
        raise UserError(
            f"{prefix}={values!r}: expected a group of keys: {', '.join(f.name for f in dataclasses.fields(cls))}"
        )
    fields = {field.name: field for field in dataclasses.fields(cls)}
    types_of = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            raise unknown_key(f"{prefix}.{name}", all_keys(cls, prefix))
    found = {}
    for name, field in fields.items():
        if name in values:
            kind = types_of[name]
            is_group = dataclasses.is_dataclass(kind)
            found[name] = (
                read(kind, values[name], f"{prefix}.{name}")
                if is_group
                else _check(f"{prefix}.{name}", values[name], kind, field.metadata)
            )
    return cls(**found)


def unknown_key(name: str, known: list[str]) -> UserError:
    """Word the error for a key like `config.data.rot` that does not exist, with the nearest of those that do."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else "pyrseg_jax/run/config.py lists all keys"
    return UserError(f"{name} is not a configuration key: {hint}")


def all_keys(cls: type, prefix: str) -> list[str]:
    """List the full names of a group's keys and groups."""
    keys = []
    for name, kind in typing.get_type_hints(cls).items():
        keys.append(f"{prefix}.{name}")
        if dataclasses.is_dataclass(kind):
            keys += all_keys(kind, f"{prefix}.{name}")
    return keys


def _plain_type(kind: Any) -> type:
    if isinstance(kind, types.UnionType):
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    return typing.get_origin(kind) or kind


def _check(name: str, value: Any, kind: Any, check: typing.Mapping[str, Any]) -> Any:
    if value is None:
        if isinstance(kind, types.UnionType):
            return None
        raise UserError(f"{name} is not set: expected {_plain_type(kind).__name__}")
    plain = _plain_type(kind)
    if plain is tuple and isinstance(value, list | tuple):
        value = tuple(value)
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise UserError(f"{name}={value!r}: expected {plain.__name__}, found {type(value).__name__}")
    if value not in check.get("choices", (value,)):
        raise UserError(f"{name}={value!r}: expected one of {', '.join(check['choices'])}")
    # Written so that NaN, which compares as false, is refused, too.
    if "minimum" in check and not value >= check["minimum"]:
        raise UserError(f"{name}={value!r}: expected at least {check['minimum']}")
    if "maximum" in check and not value <= check["maximum"]:
        raise UserError(f"{name}={value!r}: expected at most {check['maximum']}")
    return value
