"""`pyrseg help`: explain the command line, a mode, a flag, a configuration key or a group of keys."""

import difflib

from pyrseg_jax.commands import MODES
from pyrseg_jax.errors import UserError
from pyrseg_jax.run.command_line import FLAGS, SHARED_FLAGS
from pyrseg_jax.run.keys import Key, group_names, keys_of
from pyrseg_jax.run.schema import Config


def show(topic: str | None) -> None:
    """Print the explanation of a topic, by default of the command line.

    Raises:
      UserError: for a topic that nothing is known of.
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
        return "\n".join(f"{key.name:<{width}}  {key.description}" for key in chosen)
    if name in FLAGS:
        return f"{_spell(name)}: {FLAGS[name].help}"
    near = difflib.get_close_matches(name, [*MODES, *keys, *group_names(Config), *FLAGS], 1)
    hint = (
        f"did you mean `pyrseg help {near[0]}`?"
        if near
        else "`pyrseg help` lists the modes, `pyrseg help config` the keys"
    )
    raise UserError(f"nothing is known about {topic!r}: {hint}")


def explain_key(key: Key) -> str:
    """Return all that the schema says about a key."""
    unit = f" ({key.unit})" if key.unit else ""
    change = "may change between parts of a run" if key.is_resumable else "is fixed for a run"
    return "\n".join(
        [
            f"--config.{key.name}={key.default!r}",
            "",
            f"  {key.description}",
            f"  values:   {key.describe_values().replace('`', '')}{unit}",
            f"  default:  {key.default!r}",
            f"  resuming: it {change}",
            f"  since:    version {key.since}",
        ]
    )


def _explain_mode(name: str) -> str:
    mode = MODES[name]
    flags = [flag for flag in mode.takes if flag in FLAGS]
    if mode.has_config:
        flags += [flag for flag in SHARED_FLAGS if flag not in flags]
    lines = [f"pyrseg {name}: {mode.help}", ""]
    width = max((len(_spell(flag)) for flag in flags), default=0)
    lines += [f"  {_spell(flag):<{width}}  {FLAGS[flag].help}{_required(flag, mode.needs)}" for flag in flags]
    if mode.takes_topic:
        lines += [f"  usage: pyrseg {name} TOPIC"]
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
            *(f"  {_spell(name):<{width}}  {flag.help}" for name, flag in FLAGS.items()),
            f"  {'--config.KEY=VALUE':<{width}}  change one configuration key",
            f"  {'--version':<{width}}  print the version",
            "",
            "pyrseg help MODE explains a mode, pyrseg help KEY a key such as training.batch_size; pyrseg help config lists all",
            "keys.",
        ]
    )
