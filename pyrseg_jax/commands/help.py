"""`pyrseg help`: explain the command line, a mode, a flag, a configuration key or a group of keys."""

import difflib

from pyrseg_jax.commands import MODES
from pyrseg_jax.errors import UserError
from pyrseg_jax.run.command_line import FLAGS, PROCESS_FLAGS, SHARED_FLAGS
from pyrseg_jax.run.keys import Key, choices_of, group_names, keys_of
from pyrseg_jax.run.schema import Config

_MODE_FLAG, _MODE_HELP = "--mode=MODE", "the mode, for commands that do not begin with it"
_HOW_TO_WRITE = "To set a key to None, write --config.KEY=None; write lists as 32,16,8,4 and booleans as true or false."


def show(topic: str | None) -> None:
    """Print the explanation of a topic; without a topic, explain the command line.

    Raises:
      UserError: for an unknown topic.
    """
    print(explain(topic) if topic else _usage())


def explain(topic: str) -> str:
    """Return the explanation of a mode, a flag, a key or a group of keys; `config` lists all keys."""
    if topic in MODES:
        return _explain_mode(topic)
    keys = keys_of(Config)
    name = topic.lstrip("-").removeprefix("config.")
    if name in keys:
        return explain_key(keys[name])
    if name == "config" or name in group_names(Config):
        chosen = [key for key in keys.values() if name == "config" or key.name.startswith(f"{name}.")]
        width = max(len(key.name) for key in chosen)
        lines = [f"{'*' if key.is_resumable else ' '} {key.name:<{width}}  {key.description}" for key in chosen]
        return "\n".join([*lines, "", "* can be changed when a run resumes", _HOW_TO_WRITE])
    if name in FLAGS:
        return f"{_spell(name)}: {FLAGS[name].help}"
    if name == "mode":
        return f"{_MODE_FLAG}: {_MODE_HELP}: {', '.join(MODES)}"
    near = difflib.get_close_matches(name, [*MODES, *keys, *group_names(Config), *FLAGS], 1)
    hint = (
        f"did you mean `pyrseg help {near[0]}`?"
        if near
        else "`pyrseg help` lists the modes, `pyrseg help config` the keys"
    )
    raise UserError(f"nothing is known about {topic!r}: {hint}")


def explain_key(key: Key) -> str:
    """Return everything that the schema says about a key."""
    unit = f" ({key.unit})" if key.unit and not key.is_duration else ""
    change = "can" if key.is_resumable else "cannot"
    choices = choices_of(key)
    width = max(map(len, choices), default=0)
    return "\n".join(
        [
            f"--config.{key.name}={key.default!r}",
            "",
            f"  {key.description}",
            f"  values:   {'one of' if choices else key.describe_values()}{unit}",
            *(f"    {name:<{width}}  {meaning}".rstrip() for name, meaning in choices.items()),
            f"  default:  {key.default!r}",
            f"  resuming: {change} be changed when a run resumes",
            f"  since:    version {key.since}",
        ]
    )


def _explain_mode(name: str) -> str:
    mode = MODES[name]
    flags = [flag for flag in mode.flags if flag in FLAGS]
    if mode.has_config:
        general = [*SHARED_FLAGS, *(PROCESS_FLAGS if mode.is_parallel else ())]
        flags += [flag for flag in general if flag not in flags]
    lines = [f"pyrseg {name}: {mode.help}", ""]
    width = max((len(_spell(flag)) for flag in flags), default=0)
    lines += [f"  {_spell(flag):<{width}}  {FLAGS[flag].help}{_required(flag, mode.needs)}" for flag in flags]
    if mode.topic:
        lines += [f"  usage: pyrseg {name} {mode.topic}"]
    return "\n".join(lines)


def _required(flag: str, needs: tuple[str, ...]) -> str:
    return " (required)" if flag in needs else ""


def _spell(flag: str) -> str:
    return f"--{flag}={FLAGS[flag].metavar}" if FLAGS[flag].metavar else f"--{flag}"


def _usage() -> str:
    width = max(len(_spell(name)) for name in FLAGS)
    return "\n".join(
        [
            "pyrseg MODE --config=NAME[:WORDS] [--workdir=DIR] [--config.KEY=VALUE …]",
            "python -m pyrseg_jax.main --config=configs/NAME.py[:WORDS] --mode=MODE …   (the same, in a checkout)",
            "",
            "modes:",
            *(f"  {name:<10}  {mode.help}" for name, mode in MODES.items()),
            "",
            "flags:",
            f"  {_MODE_FLAG:<{width}}  {_MODE_HELP}",
            *(f"  {_spell(name):<{width}}  {flag.help}" for name, flag in FLAGS.items()),
            f"  {'--config.KEY=VALUE':<{width}}  change one configuration key",
            f"  {'--version':<{width}}  print the version",
            "",
            "pyrseg help MODE explains a mode, and pyrseg help KEY explains a key such as training.batch_size; pyrseg help config",
            "lists all keys.",
            _HOW_TO_WRITE,
        ]
    )
