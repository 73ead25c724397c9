"""Configuration: from the `ConfigDict` of a config file, and flags, to the frozen schema.

The configuration is read once, when a command starts. Nothing below `commands/` sees a `ConfigDict`. `schema/` lists the keys.
"""

import dataclasses
import difflib
import functools
import json
import logging
from collections.abc import Mapping
from typing import Any

import ml_collections
import pydantic

from pyrseg_jax.errors import UserError
from pyrseg_jax.run import keys
from pyrseg_jax.run.durations import steps_of
from pyrseg_jax.run.schema import Config, Data, Evaluation, Model, Parallel, Training
from pyrseg_jax.storage import documents

# The groups are for those who read a resolved configuration.
__all__ = ["Config", "Data", "Evaluation", "Model", "Parallel", "Training"]

log = logging.getLogger(__name__)

# Keys of earlier versions, and why they are gone. Runs that were started with them can still be read.
RETIRED = {
    "model.scan": "blocks are always applied one by one, which was faster on every device",
}
MAX_NAMES = 12  # keys of a group that an error lists
_SCHEMA = pydantic.TypeAdapter(Config)


def defaults() -> Any:
    """Return a `ConfigDict` of every key with its default, for a config file to start from.

    It is annotated as `Any` because a type checker cannot know which attributes a `ConfigDict` has.
    """
    return keys.to_config_dict(Config())


def resolve(config: ml_collections.ConfigDict, changes: Mapping[str, Any] | None = None) -> Config:
    """Read a `ConfigDict` through the schema.

    Args:
      config: the result of a config file's `get_config`.
      changes: values that go on top, by key, for example `{"training.steps": 7}`.

    Raises:
      UserError: naming the key, for one that does not exist (with the nearest that does), a value of the wrong type or
        outside its range, or values that do not fit together.
    """
    values = config.to_dict()
    if "said" in values:  # a field of the schema that is not a key
        raise unknown_key("said")
    change(values, changes or {})
    return _read(values)


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a configuration with other values for some keys, for example `{"training.steps": 7}`, checked again.

    Raises:
      UserError: as `resolve` does.
    """
    values = dataclasses.asdict(config)
    change(values, changes)
    return _read(values)


def change(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put values for some keys into nested dictionaries; raises UserError for a key that does not exist."""
    for name, value in changes.items():
        check_key(name)
        *groups, last = name.split(".")
        place = values
        for part in groups:
            place = place.setdefault(part, {})
        if isinstance(
            place, dict
        ):  # otherwise the config file put a value where a group belongs, and the schema says so
            place[last] = value
        values.get("said", {}).pop(name, None)  # the earlier text does not apply any more


def resolve_durations(config: Config, num_training_images: int | None) -> Config:
    """Turn durations in epochs into steps, and keep the original text in `said`.

    Args:
      config: a configuration that may contain text such as "120 epochs".
      num_training_images: images of the training split, without those held out; None if unknown.

    Returns:
      The configuration with whole numbers only.

    Raises:
      UserError: if there are epochs and the number of images is not known.
    """
    texts = {
        name: value
        for name, about in keys.keys_of(Config).items()
        if about.is_duration and isinstance(value := keys.value_of(config, name), str)
    }
    if not texts:
        return config
    if num_training_images is None:
        name, text = next(iter(texts.items()))
        raise UserError(
            f"config.{name}={text!r}: the number of training images of {config.data.name} is unknown until its files are "
            "read; give a number of steps here"
        )
    batch = config.training.batch_size
    steps = {name: steps_of(text, num_training_images, batch) for name, text in texts.items()}
    for name, text in texts.items():
        log.info("config.%s: %s are %d steps of %d images", name, text, steps[name], batch)
    values = dataclasses.asdict(changed(config, steps))
    return _read(values | {"said": config.said | texts})


def to_json(config: Config) -> str:
    """Write the resolved configuration as JSON."""
    return json.dumps(to_values(config), indent=2) + "\n"


def to_values(config: Config) -> dict[str, Any]:
    """Turn a configuration into nested dictionaries; they include `said` unless it is empty."""
    values = dataclasses.asdict(config)
    return values if config.said else {name: value for name, value in values.items() if name != "said"}


def from_json(text: str | bytes, name: str = "config.json") -> Config:
    """Read what `to_json` wrote, also by earlier versions.

    Raises:
      UserError: as `resolve` does, or if this is not JSON; `name` says where the text is from.
    """
    advice = "restore the file, or use another --workdir"
    values = documents.parse_object(text, name, advice)
    for retired in RETIRED:
        group, _, last = retired.rpartition(".")
        if isinstance(values.get(group), dict) and values[group].pop(last, None) is not None:
            _say_retired(retired)
    try:
        config = _read(values)
    except UserError as error:
        raise UserError(f"{name}: {error}; {advice}") from error
    for group in ("data", "model", "training"):
        if group not in values:  # defaults would build another network, and blame the checkpoints for it
            raise UserError(f"{name}: the key {group} is missing; {advice}")
    return config


@functools.cache  # a command reads the file several times
def _say_retired(name: str) -> None:
    log.info("config.%s of this run is ignored: %s", name, RETIRED[name])


def check_key(name: str) -> None:
    """Raise UserError if there is no key or group of this name, for example `data.rot`."""
    if name not in keys.keys_of(Config) and name not in keys.group_names(Config):
        raise unknown_key(name)


def unknown_key(name: str) -> UserError:
    """Return the error for a key that does not exist, like `data.rot`; it suggests the most similar key."""
    if name in RETIRED:
        return UserError(f"config.{name} is not a configuration key any more: {RETIRED[name]}; leave it out")
    near = difflib.get_close_matches(name, [*keys.keys_of(Config), *keys.group_names(Config)], 1)
    hint = f"did you mean config.{near[0]}?" if near else "`pyrseg help config` lists all keys"
    return UserError(f"config.{name} is not a configuration key: {hint}")


def _read(values: Mapping[str, Any]) -> Config:
    try:
        config = _SCHEMA.validate_python(values)
    except pydantic.ValidationError as error:
        raise _word(error) from error
    from pyrseg_jax.run import checks  # it asks the networks, and a config file need not wait for jax

    config = checks.fill_strides(config)
    checks.check_together(config)
    return config


def _word(error: pydantic.ValidationError) -> UserError:
    """Describe the first of pydantic's problems in one line. An unknown key goes first, because it may explain the others."""
    problems = error.errors(include_url=False)
    for problem in problems:
        if problem["type"] in documents.UNKNOWN_KEY:
            return unknown_key(documents.place_of(problem["loc"]))
    name, value = documents.place_of(problems[0]["loc"]), problems[0]["input"]
    if problems[0]["type"] == "dataclass_type":
        group = Config.__annotations__[name] if name else Config
        names = [*group.__annotations__]
        shown = ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")
        return UserError(f"config.{name}={documents.shorten(value)}: expected a group of keys: {shown}")
    if value is None:
        about = keys.keys_of(Config).get(name)
        return UserError(f"config.{name} is not set: expected {about.type.__name__ if about else 'a value'}")
    expected = documents.expectation(problems[0])
    if problems[0]["type"] == "one_of_many":
        expected += f"; `pyrseg help {name}` lists them all"
    if (
        problems[0]["type"] == "tuple_type"
    ):  # on the command line and in Python, integers are not written as a JSON list
        expected = f"expected integers such as (8, 4), found {type(value).__name__}"
    return UserError(f"config.{name}={documents.shorten(value)}: {expected}")
